"""A real index after the recorded network, filled as the program fills it but without processes.

What reached the other index by other ways than the firehose (muted threads and accounts, bookmarks,
subscriptions to accounts) happened within a second near the end. It is put into our tables at that
moment, after everything before it has been carried out: a mute does not reach back.
"""

from bisect import bisect
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TypeVar

import libipld
import msgspec
import psycopg
from psycopg import sql

from actors.decoder import Batch
from actors.lexicons import Lexicons
from actors.messages import NotifierWork, RegistryWork
from actors.store import outbox
from actors.store.bisect import apply_bisecting
from actors.store.consequences import NOTIFIER, REGISTRY
from actors.store.notifications import NotificationWriter
from actors.store.registry import look, prepare
from engine.message import Codec
from tests.corpus import files
from tests.writing import GATE, begin_run, claimed, make_index, make_users, session, writer

FRAMES_IN_A_BATCH = 100
ROWS_AT_ONCE = 100
# Its tables of what came by other ways, ours, and the columns of each.
PRIVATE: dict[str, tuple[str, dict[str, str]]] = {
    "bookmark": (
        "bookmarks",
        {"user_did": "creator", "post_uri": "subjectUri", "created_at": "indexedAt"},
    ),
    "mute": (
        "mutes",
        {"muter_did": "mutedByDid", "muted_did": "subjectDid", "created_at": "createdAt"},
    ),
    "list_mute": (
        "list_mutes",
        {"muter_did": "mutedByDid", "list_uri": "listUri", "created_at": "createdAt"},
    ),
    "thread_mute": (
        "thread_mutes",
        {"muter_did": "mutedByDid", "thread_root_uri": "rootUri", "created_at": "createdAt"},
    ),
    "activity_subscription": (
        "activity_subscriptions",
        {
            "subscriber_did": "creator",
            "subject_did": "subjectDid",
            "cid": "key",
            "created_at": "indexedAt",
        },
    ),
}

_CODEC = Codec((RegistryWork, NotifierWork))

Work = TypeVar("Work", RegistryWork, NotifierWork)


def fill(conninfo: str) -> None:
    """Make the index of the whole capture in an empty database."""
    make_index(conninfo)
    epoch = begin_run(conninfo)
    lexicons = Lexicons()
    before, after = _around_private_writes()
    with _Engine(conninfo, epoch) as engine:
        for part, finish in ((before, _write_private), (after, None)):
            for at in range(0, len(part), FRAMES_IN_A_BATCH):
                batch = Batch(validate=lexicons.validate)
                for frame in part[at : at + FRAMES_IN_A_BATCH]:
                    batch.add(frame)
                engine.apply(batch)
            engine.settle()
            if finish is not None:
                finish(conninfo)


class _Engine(ExitStack):
    """One shard, the registry, the notifier and the gate: what they do to the database."""

    def __init__(self, conninfo: str, epoch: int) -> None:
        super().__init__()
        self._conninfo = conninfo
        self._shard = self.enter_context(writer(conninfo, epoch))
        self._registry = self.enter_context(session(conninfo, REGISTRY))
        prepare(self._registry)
        notifying = self.enter_context(session(conninfo, NOTIFIER))
        self._notifier = NotificationWriter(notifying, claimed(notifying, NOTIFIER, epoch))
        self._gate = claimed(self.enter_context(session(conninfo, GATE)), GATE, epoch)

    def apply(self, batch: Batch) -> None:
        """Write a batch."""
        users = msgspec.json.encode(sorted(batch.authors | batch.subjects))
        apply_bisecting(
            self._shard, batch.changes, [(GATE, users)], batch.tallies(), lambda _seconds: None
        )

    def settle(self) -> None:
        """Carry out whatever follows from what was written, until nothing is left to do."""
        for subject in self._shard.backlog()[0]:
            while self._shard.purge_slice(subject) is not None:
                pass
        make_users(self._conninfo, self._gate)
        while rows := outbox.left_for(self._registry, REGISTRY, ROWS_AT_ONCE):
            found = look(self._registry, [_decoded(row.body, RegistryWork) for row in rows])
            claims = [(claim.uri, claim.awaited) for claim in found.claims]
            if claims or found.judge:
                self._shard.settle(claims, list(found.judge))
            if found.whole:
                outbox.finish(self._registry, [row.row for row in rows])
        while rows := outbox.left_for(self._registry, NOTIFIER, ROWS_AT_ONCE):
            works = [_decoded(row.body, NotifierWork) for row in rows]
            self._notifier.write(works, [row.row for row in rows])
        assert outbox.depth(self._registry) == 0


def _decoded(body: bytes, kind: type[Work]) -> Work:
    work = _CODEC.decode(body)
    assert isinstance(work, kind)
    return work


def _around_private_writes() -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The frames before the first and after the last of the private writes."""
    moments = [row[columns["created_at"]] for row, columns in _private_rows()]
    frames = files.demo_frames()
    times = [libipld.decode_dag_cbor_multi(frame)[1]["time"] for frame in frames]
    assert times == sorted(times)
    place = bisect(times, min(moments))
    assert place == bisect(times, max(moments)) < len(frames)
    return frames[:place], frames[place:]


def _private_rows() -> list[tuple[dict[str, str], dict[str, str]]]:
    return [(row, columns) for name, (_, columns) in PRIVATE.items() for row in files.oracle(name)]


def _write_private(conninfo: str) -> None:
    """Write what an AppView on our tables would have written; it counts bookmarks itself, and notes
    them for the viewer.
    """
    with psycopg.connect(conninfo) as connection:
        for name, (table, columns) in PRIVATE.items():
            for number, row in enumerate(files.oracle(name)):
                values = {"uri": f"private:{name}:{number}"}
                values |= {column: row[theirs] for column, theirs in columns.items()}
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                        sql.Identifier(table),
                        sql.SQL(", ").join(map(sql.Identifier, values)),
                        sql.SQL(", ").join([sql.Placeholder()] * len(values)),
                    ),
                    list(values.values()),
                )
        connection.execute(
            "UPDATE post_aggregations SET bookmark_count = b.amount FROM ("
            "SELECT post_uri, count(*) AS amount FROM bookmarks GROUP BY post_uri) b"
            " WHERE b.post_uri = post_aggregations.post_uri"
        )
        connection.execute(
            "INSERT INTO post_viewer_states AS s (post_uri, viewer_did, bookmarked)"
            " SELECT post_uri, user_did, true FROM bookmarks"
            " ON CONFLICT (viewer_did, post_uri) DO UPDATE SET bookmarked = true"
        )
