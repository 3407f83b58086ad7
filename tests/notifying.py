"""Accounts that write, and a notifier that is told what to look at, on a real database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.rows import dict_row

from actors.messages import NotifierWork
from actors.store import outbox
from actors.store.fence import Fence
from actors.store.notifications import NotificationWriter, Written
from actors.store.session import Connection
from actors.store.writer import Writer
from engine.message import Codec
from tests.author import Author, ref
from tests.writing import begin_run, claimed, decoded, empty, make_index, session

NOTIFIER = "notifier"
CODEC = Codec((NotifierWork,))


def key(number: int) -> str:
    """A record key of the kind that most records have."""
    return f"3l{number:011d}".translate(str.maketrans("0189", "abcd"))


def mention(*dids: object) -> list[dict[str, Any]]:
    """Facets that mention these, one each."""
    return [
        {
            "index": {"byteStart": 0, "byteEnd": 1},
            "features": [{"$type": "app.bsky.richtext.facet#mention", "did": did}],
        }
        for did in dids
    ]


def quote(uri: str) -> dict[str, Any]:
    """The `embed` of a post that quotes another."""
    return {"$type": "app.bsky.embed.record", "record": ref(uri)}


class Place:
    """A database, a shard's writer on it that leaves no work to others, and a notifier's."""

    def __init__(self, writer: Writer, connection: Connection, fence: Fence, epoch: int) -> None:
        self.writer = writer
        self.connection = connection
        self.fence = fence
        self.epoch = epoch
        self.notifier = NotificationWriter(connection, fence)
        self._accounts = 0
        self._records = 0

    def account(self) -> Author:
        """Another account."""
        self._accounts += 1
        return Author(self._accounts)

    def put(self, who: Author, collection: str, rkey: str | None = None, **fields: Any) -> str:
        """Have a record written, and return its uri."""
        if rkey is None:
            self._records += 1
            rkey = key(self._records)
        path = f"{collection}/{rkey}"
        self.apply(who.creates(path, **fields))
        return who.uri(path)

    def post(self, who: Author, rkey: str | None = None, **fields: Any) -> str:
        """Have a post written; `to` is the uri that it replies to, `root` that of the thread."""
        to, root = fields.pop("to", None), fields.pop("root", None)
        if to is not None:
            fields["reply"] = {"parent": ref(to), "root": ref(root or to)}
        return self.put(who, "app.bsky.feed.post", rkey, **{"text": "words", **fields})

    def thread(self, *authors: Author) -> list[str]:
        """Have a chain of replies written, one by each author, and return their uris."""
        posts: list[str] = []
        for author in authors:
            above = {"to": posts[-1], "root": posts[0]} if posts else {}
            posts.append(self.post(author, **above))
        return posts

    def like(self, who: Author, subject: str, **fields: Any) -> str:
        """Have a like written."""
        return self.put(who, "app.bsky.feed.like", subject=ref(subject), **fields)

    def repost(self, who: Author, subject: str, **fields: Any) -> str:
        """Have a repost written."""
        return self.put(who, "app.bsky.feed.repost", subject=ref(subject), **fields)

    def delete(self, who: Author, uri: str) -> None:
        """Have a record deleted."""
        self.apply(who.deletes(uri.split("/", 3)[3]))

    def apply(self, *frames: bytes) -> None:
        """Have frames applied."""
        batch = decoded(frames)
        assert not batch.drops, batch.drops
        outcome = self.writer.apply(batch.changes)
        assert not outcome.drops, outcome.drops

    def flag(self, post: str, flag: str, value: bool = True) -> None:
        """Set a judgement of a post."""
        self.connection.execute(
            f"UPDATE posts SET {flag} = %s WHERE uri = %s",
            [value, post],
        )

    def mute(self, muter: Author, root: str) -> None:
        """Have somebody mute a thread."""
        self.connection.execute(
            "INSERT INTO thread_mutes (uri, muter_did, thread_root_uri, created_at)"
            " VALUES (%s, %s, %s, now())",
            [f"{root} {muter.did}", muter.did, root],
        )

    def subscribe(self, subscriber: Author, author: Author) -> None:
        """Have somebody subscribe to the posts of another."""
        self.connection.execute(
            "INSERT INTO activity_subscriptions (uri, cid, subscriber_did, subject_did, created_at)"
            " VALUES (%s, 'cid', %s, %s, now())",
            [f"at://{subscriber.did}/subscription/{author.did}", subscriber.did, author.did],
        )

    def look(self, *records: str, **work: Any) -> Written:
        """Have the notifier look at records; see NotifierWork for the rest."""
        return self.notifier.write([NotifierWork(records=records, **work)])

    def leave(self, *works: NotifierWork) -> list[int]:
        """Put work into the outbox, and return its rows."""
        rows = self.connection.execute(
            outbox.INSERT_SQL,
            outbox.insert_parameters([(NOTIFIER, CODEC.encode(work)) for work in works]),
        ).fetchall()
        return [row for (row,) in rows]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every notification by its uri."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute("SELECT * FROM notifications ORDER BY uri").fetchall()
        return {row["uri"]: row for row in rows}

    def told(self) -> set[tuple[str, str]]:
        """Who was told, and for which reason."""
        found = [(row["recipient_did"], row["reason"]) for row in self.rows().values()]
        assert len(found) == len(set(found)), found
        return set(found)


@contextmanager
def place(conninfo: str) -> Iterator[Place]:
    """Make the tables of a database, or empty them, and open a place on it."""
    make_index(conninfo)
    empty(conninfo)
    epoch = begin_run(conninfo)
    with session(conninfo, "shard-0") as writing, session(conninfo, NOTIFIER) as notifying:
        shard = Writer(writing, claimed(writing, "shard-0", epoch), receivers=())
        yield Place(shard, notifying, claimed(notifying, NOTIFIER, epoch), epoch)
