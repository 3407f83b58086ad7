"""What a shard with `verify.mode` does with a batch, and the resolver with an identity, without
their actors.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import libipld
import psycopg

from actors.decoder import Batch
from actors.parked import ParkedEvents
from actors.store import identities, parking, resync
from actors.store.batch import Change, Outcome
from actors.store.bisect import apply_bisecting
from actors.store.identities import Due, Found, signing_keys
from actors.store.reading import revs_of
from actors.store.writer import Writer
from actors.verification import Verification
from tests.author import Author
from tests.writing import claimed


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
    """One shard and the resolver on a database."""

    def __init__(self, writing: Writer, connection: psycopg.Connection[Any], epoch: int) -> None:
        self.writing = writing
        self.connection = connection
        self.verification = Verification()
        self.outcome = Outcome()
        self._resolver = claimed(connection, "resolver", epoch)
        self._parked = ParkedEvents(
            self.new_batch, verifies=True, crash_point=lambda: self.crash_point("draining")
        )

    def crash_point(self, name: str) -> None:
        """To be replaced by a test that crashes there."""

    def new_batch(self) -> Batch:
        return Batch(signatures=True, trees=True)

    # --- the shard

    def live(self, *frames: bytes, before: Sequence[Change] = ()) -> Outcome:
        batch = self.new_batch()
        batch.changes += before
        for seq, frame in enumerate(frames):
            batch.add(frame, "host")
            assert len(batch.changes) == len(before) + seq + 1, batch.drops
        found = self.verification.sort(
            batch.changes, partial(signing_keys, self.connection), partial(revs_of, self.connection)
        )
        outcome = apply_bisecting(self.writing, found.ready, (), {}, no_wait)
        if found.waiting:
            self.crash_point("parking")
            outcome.add(resync.await_keys(self.writing, found.reasons, found.waiting, no_wait))
        self.outcome.add(outcome)
        return outcome

    def ready(self) -> list[str]:
        return parking.list_draining(self.connection)

    def drain(self) -> None:
        for did in self.ready():
            while (drained := self.drain_once(did)) is not None:
                self.outcome.add(drained)

    def drain_once(self, did: str) -> Outcome | None:
        return resync.drain(self.writing, did, self._parked.decode, no_wait)

    # --- the resolver

    def meet(self, *authors: Author) -> None:
        """The user gate has made rows of these accounts."""
        for author in authors:
            self.run(
                "INSERT INTO users (did, handle) VALUES (%s, 'handle.invalid')"
                " ON CONFLICT DO NOTHING",
                author.did,
            )
            self.connection.execute(
                identities.CREATE_SQL, identities.create_parameters([author.did])
            )

    def ask(self, author: Author) -> Due:
        """The resolver begins to look at an identity."""
        (row,) = self.run(
            "SELECT (extract(epoch FROM next_check) * 1000000)::bigint, rank"
            " FROM engine_identities WHERE did = %s",
            author.did,
        )
        return Due(author.did, row[1], row[0], 0, identities.INVALID, 0.0)

    def answer(
        self, due: Due, key: str | None, *, settled: bool = True, known: bool = True
    ) -> None:
        """It has the answer, and writes it."""
        found = Found(due, 3600.0, None, settled=settled, known=known, signing_key=key)
        identities.write(self.connection, self._resolver, [found])

    def resolved(self, author: Author, key: str | None) -> None:
        self.meet(author)
        self.answer(self.ask(author), key)

    # --- what came of it

    def run(self, sql: str, *parameters: Any) -> list[Any]:
        cursor = self.connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def posts(self) -> list[str]:
        return [text for (text,) in self.run("SELECT text FROM posts ORDER BY text")]

    def refused(self) -> list[tuple[str, str]]:
        """Reason and subject of every drop so far."""
        return [(str(drop.reason), drop.subject) for drop in self.outcome.drops]

    def tallied(self) -> int:
        """Commits that were dropped for their signature, by the index's own count."""
        ((amount,),) = self.run(
            "SELECT coalesce(sum(amount), 0)::integer FROM engine_tallies"
            " WHERE name = 'drop.bad_signature'"
        )
        assert isinstance(amount, int)
        return amount

    def parked(self) -> list[tuple[str, bool]]:
        """For what accounts wait, and whether they are drained by now."""
        return self.run("SELECT reason, draining FROM engine_parked ORDER BY did")

    def asked_again(self, author: Author) -> bool:
        """Whether the resolver is to look at an identity at once."""
        ((due,),) = self.run(
            "SELECT stale AND next_check <= now() FROM engine_identities WHERE did = %s", author.did
        )
        assert isinstance(due, bool)
        return due
