"""Commits whose signature cannot be verified: they wait for the identity, and then are applied or
dropped."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import libipld
import psycopg
import pytest

from actors.decoder import Batch
from actors.store import parking, resync
from actors.store.batch import Change, Dropped, IdentityState, Outcome
from actors.store.identities import signing_keys
from actors.store.parking import NO_KEY, WRONG_KEY, Parked
from actors.store.writer import Writer
from actors.verification import Verification, proven
from bench.network_account import key_of
from tests.author import Author
from tests.writing import begin_run, make_index, session, writer

POST = "app.bsky.feed.post"


class Signer(Author):
    """An author who signs, with a key that may change."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._sign = True

    @property
    def multikey(self) -> str:
        point = self.key.public_key.format(compressed=True)
        return libipld.encode_multibase("z", b"\xe7\x01" + point)


def no_wait(_seconds: float) -> None:
    return None


class Stage:
    """What a shard does with a batch, without its actor."""

    def __init__(self, writing: Writer, connection: psycopg.Connection[Any]) -> None:
        self.writing = writing
        self.connection = connection
        self.verification = Verification()
        self.dropped: list[Dropped] = []

    def live(self, *frames: bytes, before: Sequence[Change] = ()) -> Outcome:
        changes = [*before, *self.decoded(frames)]
        lookup = partial(signing_keys, self.connection)
        if reasons := self.verification.unproven(changes, lookup):
            resync.await_keys(self.writing, reasons, no_wait)
        return self.writing.apply(changes)

    def decoded(self, frames: Sequence[bytes]) -> list[Change]:
        batch = Batch(signatures=True, trees=True)
        for frame in frames:
            batch.add(frame)
        assert batch.drops == []
        return batch.changes

    def ready(self) -> list[str]:
        return parking.list_draining(self.connection)

    def drain(self) -> None:
        for did in self.ready():
            while resync.drain(self.writing, did, self._decode, no_wait) is not None:
                pass

    def _decode(
        self, connection: psycopg.Connection[Any], rows: Sequence[Parked]
    ) -> Sequence[Change]:
        changes = self.decoded([row.frame for row in rows])
        kept, drops = proven(changes, partial(signing_keys, connection))
        self.dropped += drops
        return kept

    def resolved(self, author: Signer, key: str | None) -> None:
        """The resolver has looked at the identity."""
        self.connection.execute(
            "INSERT INTO engine_identities (did, plc, signing_key, checked_at)"
            " VALUES (%s, true, %s, now()::timestamp + interval '1 s') ON CONFLICT (did) DO UPDATE"
            " SET signing_key = excluded.signing_key, checked_at = excluded.checked_at",
            [author.did, key],
        )

    def posts(self) -> list[str]:
        rows = self.connection.execute("SELECT text FROM posts ORDER BY text").fetchall()
        return [text for (text,) in rows]


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    conninfo = make_index(database)
    with (
        writer(conninfo, begin_run(conninfo)) as writing,
        session(conninfo, "observer") as connection,
    ):
        yield Stage(writing, connection)


def test_a_commit_by_a_known_key_is_applied_at_once(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    assert stage.live(author.creates(f"{POST}/a", text="a")).commits == 1
    assert stage.ready() == []


def test_commits_without_a_known_key_wait_in_order_and_hold_up_nobody(stage: Stage) -> None:
    author, other = Signer(1), Signer(2)
    stage.resolved(other, other.multikey)
    outcome = stage.live(
        author.creates(f"{POST}/a", text="a"),
        other.creates(f"{POST}/o", text="o"),
        author.deletes(f"{POST}/a"),
    )
    stage.live(author.creates(f"{POST}/b", text="b"))
    assert (outcome.commits, outcome.parked) == (1, 2)
    assert stage.posts() == ["o"]
    assert stage.connection.execute("SELECT reason FROM engine_parked").fetchall() == [(NO_KEY,)]
    assert stage.ready() == []
    stage.resolved(author, author.multikey)
    assert stage.ready() == [author.did]
    stage.drain()
    assert stage.posts() == ["b", "o"]
    assert stage.connection.execute("SELECT * FROM engine_parked").fetchall() == []
    assert stage.live(author.creates(f"{POST}/c", text="c")).commits == 1


def test_after_a_change_of_keys_the_new_one_is_right(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.connection.execute("UPDATE engine_identities SET checked_at = '2020-01-01'")
    author.key = key_of(5, 5)
    stage.live(author.creates(f"{POST}/b", text="b"))
    assert stage.connection.execute("SELECT reason FROM engine_parked").fetchall() == [(WRONG_KEY,)]
    assert stage.ready() == [], "the key that is known does not fit: it must be looked up first"
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b"]
    assert stage.dropped == []
    # An event about the identity has the key looked up again.
    told = IdentityState(author.did, "host", 1, 1)
    assert stage.live(author.creates(f"{POST}/c", text="c"), before=[told]).commits == 1


def test_what_is_signed_by_somebody_else_is_dropped_once_the_identity_was_looked_at(
    stage: Stage,
) -> None:
    author, forger = Signer(1), Signer(1)
    stage.resolved(author, author.multikey)
    stage.connection.execute("UPDATE engine_identities SET checked_at = '2020-01-01'")
    forger.key = key_of(9, 9)
    stage.live(forger.creates(f"{POST}/a", text="forged"))
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == []
    assert [(drop.reason, drop.subject) for drop in stage.dropped] == [
        ("bad_signature", author.did)
    ]
    assert stage.live(author.creates(f"{POST}/b", text="b")).commits == 1


def test_an_account_without_a_key_has_its_commits_dropped_when_that_is_certain(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.resolved(author, None)
    stage.drain()
    assert stage.posts() == []
    assert len(stage.dropped) == 1


def test_a_key_that_is_looked_up_ends_no_fetch_of_the_repository(stage: Stage) -> None:
    author = Signer(1)
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.resolved(author, author.multikey)
    assert stage.ready() == []
