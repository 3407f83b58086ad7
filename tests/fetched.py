"""An index that began in the middle of what a few accounts write, and repositories to fetch."""

from typing import Any

import psycopg

from actors.atproto import frames
from actors.atproto.events import Account, Commit, Event
from tests.author import START, Author
from tests.histories import Sent
from tests.servers.repository import Repository
from tests.settling import Engine

POST = "app.bsky.feed.post"


class Stage:
    """An index that begins when it is told so, and a network of accounts before and beside it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.moment = START
        self._repositories: dict[str, Repository] = {}

    def key(self, author: Author) -> str:
        """A record key of this moment, a minute after the last."""
        self.moment += 60_000_000
        return author.next_rkey(self.moment)

    def write(self, author: Author, collection: str, *, live: bool, **fields: Any) -> str:
        """Have a record written, seen by the index or not; returns its uri."""
        path = f"{collection}/{self.key(author)}"
        self.say(author, author.creates(path, **fields), live=live)
        return author.uri(path)

    def say(self, author: Author, frame: bytes, *, live: bool) -> None:
        """Have a commit happen, seen by the index or not."""
        event: Event | None = frames.decode(frame)
        if isinstance(event, Commit):
            repository = self._repositories.setdefault(author.did, Repository(author.did))
            repository.follow(event.commit, event.blocks)
        else:
            assert isinstance(event, Account)
        if live:
            self.engine.deliver([Sent(author.did, frame)])

    def begin(self) -> Author:
        """The index begins: somebody says something."""
        somebody = Author(99)
        # Commits of authors are timed from the start on; the beginning is now.
        somebody._written = (self.moment - START) // 1_000_000 + 30
        self.write(somebody, POST, live=True, text="first")
        return somebody

    def fetch(self, *authors: Author) -> None:
        """Have their repositories fetched, and all that follows done."""
        for author in authors:
            self.engine.fetch(self._repositories[author.did], slowly=True)
        self.engine.settle()

    def rows(self, sql: str) -> list[Any]:
        with psycopg.connect(self.engine.conninfo) as connection:
            return connection.execute(sql.encode()).fetchall()

    def told(self) -> set[tuple[str, str]]:
        """Who is told, and why."""
        return set(self.rows("SELECT recipient_did, reason FROM notifications"))
