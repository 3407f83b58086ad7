"""Bringing a repository up to what its host holds: fetched records, whole files in slices, and the
live events that waited meanwhile.

What was fetched is older than what comes live after it: it is applied where the repository's rev is
at or after the one that is known, and moves no guard. Only the end of a whole file does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.drops import DropReason
from actors.store import identities, parking
from actors.store.arrays import text_array
from actors.store.batch import (
    AppliedCommit,
    Change,
    Dropped,
    Fetched,
    Operation,
    Outcome,
    Resynced,
)
from actors.store.bisect import without_refused
from actors.store.folding import PurgeFirst
from actors.store.held import Range, held
from actors.store.parking import DRAINED_AT_ONCE, Parked
from actors.store.purge import purge_to_end
from actors.store.session import TooSlow
from actors.store.writer import BatchRefused, Writer

# What a repository holds no more is removed so many records at a time.
REMOVED_AT_ONCE: Final = 2_000
EVERYTHING: Final = Range("", None)
_OUT_OF_STEP_SQL: Final = (
    b"SELECT did FROM engine_repos WHERE did = ANY(%b::text[]) AND out_of_step"
)

Wait = Callable[[float], None]


class Drained(NamedTuple):
    """What comes of the oldest events that wait: of the first `taken` of them. Before the next is
    taken its account must be looked at, where `ask` says why (NO_KEY, WRONG_KEY).
    """

    changes: Sequence[Change]
    taken: int
    ask: str | None = None


Decode = Callable[[Connection[Any], str, Sequence[Parked]], Drained]


class Whole(NamedTuple):
    """All records of a repository, and the root of its tree."""

    fetched: Fetched
    data: bytes


def begin(writer: Writer, did: str, wait: Wait) -> Outcome:
    """Park a DID: its live events wait from now on. Raises as `Writer.apply`."""
    return writer.transact(_nothing, wait, after=lambda to: parking.begin(to, did))


def await_keys(
    writer: Writer, reasons: Mapping[str, str], events: Sequence[Change], wait: Wait
) -> Outcome:
    """Park DIDs until their keys are known, with these events of theirs, and have their identities
    looked at. Raises as `Writer.apply`.
    """

    def changes(connection: Connection[Any]) -> Sequence[Change]:
        # Of those who are parked it is asked when they are drained: asking with every event would
        # make each answer be from before.
        parked = parking.parked_of(connection, list(reasons))
        new = {did: reason for did, reason in reasons.items() if did not in parked}
        # As the resolver does: identities are locked before what is parked.
        identities.recheck(connection, list(new))
        parking.await_keys(connection, new)
        return events

    return writer.transact(changes, wait)


def begin_run(writer: Writer, nobody: Sequence[str], asked: Sequence[str], wait: Wait) -> Outcome:
    """Take up what an earlier run left parked: those who wait for what this run does not do
    (`nobody`: fetching, verifying) wait no longer, and for the others (`asked`) it is asked again.

    What was to be fetched stays out of step. Raises as `Writer.apply`.
    """

    def after(connection: Connection[Any]) -> None:
        identities.ask_again(connection, asked)
        parking.nobody_comes(connection, nobody)

    return writer.transact(_nothing, wait, after=after)


def apply_fetched(
    writer: Writer,
    fetched: Fetched,
    paths: Range | None,
    wait: Wait,
    work: Sequence[tuple[str, bytes]] = (),
) -> Outcome:
    """Apply fetched records; with `paths`, what is indexed there and not among them goes.

    `work` is for the outbox. What PostgreSQL refuses is a drop. Raises as `Writer.apply`.
    """
    outcome = Outcome()
    wait(0)
    if paths is not None:
        try:
            return _with_others(writer, fetched, paths, wait, work)
        except (_TooMany, BatchRefused, TooSlow):
            outcome.add(_remove_others(writer, fetched, paths, wait))

    def changes(_connection: Connection[Any]) -> Sequence[Change]:
        return [fetched]

    try:
        outcome.add(_after_purges(writer, lambda: writer.transact(changes, wait, work=work), wait))
    except (BatchRefused, TooSlow) as refused:
        if len(fetched.operations) > 1:
            outcome.add(_in_parts(writer, fetched, wait, work))
        elif isinstance(refused, TooSlow):
            raise
        else:
            outcome.add(writer.apply([_without(fetched, str(refused))], work, wait=wait))
    return outcome


def apply_whole(
    writer: Writer,
    repositories: Sequence[Whole],
    wait: Wait,
    work: Sequence[tuple[str, bytes]] = (),
) -> Outcome:
    """Apply repositories that were fetched whole, each with its guard, in one transaction.

    One that is older than what is indexed changes nothing, nor does one that is out of step (it may
    be from before its account went away), that PostgreSQL refuses, or of which very much is gone:
    its guard tells. `work` is for the outbox. Raises as `Writer.apply`.
    """

    def changes(connection: Connection[Any]) -> Sequence[Change]:
        others = _others(connection, [each.fetched for each in repositories], EVERYTHING)
        rows = connection.execute(_OUT_OF_STEP_SQL, [text_array(list(others))]).fetchall()
        out_of_step = {did for (did,) in rows}
        made: list[Change] = []
        for fetched, data in repositories:
            gone = others[fetched.did]
            if len(gone) < REMOVED_AT_ONCE and fetched.did not in out_of_step:
                made.append(fetched._replace(operations=[*gone, *fetched.operations]))
                made.append(Resynced(fetched.did, fetched.rev, data))
        return made

    wait(0)
    try:
        return _after_purges(writer, lambda: writer.transact(changes, wait, work=work), wait)
    except (BatchRefused, TooSlow):
        # The users are made all the same: the shard holds them for made from now on.
        outcome = writer.transact(_nothing, wait, work=work)
        for each in repositories if len(repositories) > 1 else ():
            outcome.add(apply_whole(writer, [each], wait))
        return outcome


def end(writer: Writer, did: str, rev: str | None, data: bytes | None, wait: Wait) -> Outcome:
    """End the fetch of a whole repository, and have what waited drained.

    Without `rev` it failed, and the repository stays as it was. Raises as `Writer.apply`.
    """

    def changes(_connection: Connection[Any]) -> Sequence[Change]:
        return [] if rev is None or data is None else [Resynced(did, rev, data)]

    return writer.transact(changes, wait, after=lambda to: parking.drain(to, did))


def drain(writer: Writer, did: str, decode: Decode, wait: Wait) -> Outcome | None:
    """Apply some of what waits of a DID, oldest first; None when nothing is left.

    A commit that PostgreSQL refuses loses the records that are to blame. Raises as `Writer.apply`.
    """
    limit = DRAINED_AT_ONCE
    while True:
        # Halving may take long, and each step of it is a sign of life.
        wait(0)
        try:
            return _drain(writer, did, decode, wait, limit)
        except (BatchRefused, TooSlow) as refused:
            if limit == 1:
                if isinstance(refused, TooSlow):
                    raise
                return _drain(writer, did, _sparing(writer, decode, wait), wait, 1)
            limit //= 2


def _drain(writer: Writer, did: str, decode: Decode, wait: Wait, limit: int) -> Outcome | None:
    rows: list[Parked] = []
    drained = Drained((), 0)

    def changes(connection: Connection[Any]) -> Sequence[Change]:
        nonlocal drained
        rows[:] = parking.waiting(connection, did, limit)
        drained = decode(connection, did, rows) if rows else Drained((), 0)
        return drained.changes

    def after(connection: Connection[Any]) -> None:
        if drained.ask is not None:
            # Identities are locked before what is parked, and both after users.
            identities.recheck(connection, [did])
            parking.await_key_again(connection, did, drained.ask)
        taken = [each.row for each in rows[: drained.taken]]
        parking.done(connection, did, taken, last=not rows)

    outcome = _after_purges(
        writer, lambda: writer.transact(changes, wait, after=after, draining=did), wait
    )
    return outcome if rows else None


def _sparing(writer: Writer, decode: Decode, wait: Wait) -> Decode:
    """Decode one event that is refused, without the records that are to blame."""

    def spared(connection: Connection[Any], did: str, rows: Sequence[Parked]) -> Drained:
        drained = decode(connection, did, rows)
        changes = [
            without_refused(writer, change, "refused with others", wait, did)
            if isinstance(change, AppliedCommit) and change.operations
            else change
            for change in drained.changes
        ]
        return drained._replace(changes=changes)

    return spared


def _after_purges(writer: Writer, once: Callable[[], Outcome], wait: Wait) -> Outcome:
    """Do it, once the purge that must come first is finished."""
    whole = Outcome()
    while True:
        try:
            whole.add(once())
        except PurgeFirst as first:
            did = first.did
            whole.add(purge_to_end(lambda did=did: writer.purge_slice(did, wait), wait))  # type: ignore[misc]  # a default binds it
        else:
            return whole


class _TooMany(Exception):
    """More is gone than is removed at once."""


def _with_others(
    writer: Writer,
    fetched: Fetched,
    paths: Range,
    wait: Wait,
    work: Sequence[tuple[str, bytes]],
) -> Outcome:
    """Apply what was fetched, and remove what else is held in its range, in one transaction.

    Raises _TooMany, and as `Writer.transact`.
    """

    def changes(connection: Connection[Any]) -> Sequence[Change]:
        gone = _others(connection, [fetched], paths)[fetched.did]
        if len(gone) >= REMOVED_AT_ONCE:
            raise _TooMany
        return [fetched._replace(operations=[*gone, *fetched.operations])]

    return _after_purges(writer, lambda: writer.transact(changes, wait, work=work), wait)


def _others(
    connection: Connection[Any], every: Sequence[Fetched], paths: Range
) -> dict[str, list[Operation]]:
    """The removal of what is held of each in a range and was not fetched: all of it, or
    REMOVED_AT_ONCE.
    """
    came = {
        (operation.type.table, operation.key) for each in every for operation in each.operations
    }
    most = max((len(each.operations) for each in every), default=0)
    # Of so many in one table, as many as are removed at once did not come.
    here = held(connection, [each.did for each in every], paths, most + REMOVED_AT_ONCE)
    return {
        did: [each for each in of if (each.type.table, each.key) not in came][:REMOVED_AT_ONCE]
        for did, of in here.items()
    }


def _remove_others(writer: Writer, fetched: Fetched, paths: Range, wait: Wait) -> Outcome:
    """Remove what is held in a range and was not fetched: some of it at a time, as there may be
    any amount.
    """
    gone: list[Operation] = []

    def changes(connection: Connection[Any]) -> Sequence[Change]:
        gone[:] = _others(connection, [fetched], paths)[fetched.did]
        return [fetched._replace(operations=gone, drops=())] if gone else []

    outcome = Outcome()
    while True:
        wait(0)
        part = _after_purges(writer, lambda: writer.transact(changes, wait), wait)
        outcome.add(part)
        # Where nothing is applied (the file is old, the account hidden) nothing will be.
        if len(gone) < REMOVED_AT_ONCE or not part.operations:
            return outcome


def _in_parts(
    writer: Writer, fetched: Fetched, wait: Wait, work: Sequence[tuple[str, bytes]]
) -> Outcome:
    """Apply the halves."""
    outcome = Outcome()
    middle = len(fetched.operations) // 2
    first = fetched._replace(operations=fetched.operations[:middle])
    second = fetched._replace(operations=fetched.operations[middle:], drops=())
    outcome.add(apply_fetched(writer, first, None, wait, work))
    outcome.add(apply_fetched(writer, second, None, wait))
    return outcome


def _without(fetched: Fetched, reason: str) -> Fetched:
    """Return the removal of the one record that is refused, and its drop."""
    (operation,) = fetched.operations
    dropped = Dropped(DropReason.DATABASE_REFUSED, operation.uri, reason)
    return fetched._replace(
        operations=[operation._replace(row=None, cid="")], drops=[*fetched.drops, dropped]
    )


def _nothing(_connection: Connection[Any]) -> Sequence[Change]:
    return ()
