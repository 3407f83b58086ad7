"""`run.py verify`: whether the tables are what their rows make of them.

Every counter is counted again and every derived row is looked up, in slices, each in a snapshot of
its own; nothing is written and nothing is locked, so it runs on a database at work. What seems
wrong is looked at once more at the end, all in one snapshot, and only what is still wrong then is
reported.

Some rows follow later than what they rest on, by way of the outbox: users, judgements,
notifications, the end of a wait. What is wrong with these is only reported when it is so twice, and
all the work that was in the outbox the first time has been done meanwhile. Where nobody does that
work, it is left open, and counted.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import IsolationLevel

from actors.store.fence import OWNER_LOCK
from actors.store.verify_checks import Check
from actors.store.verify_walk import (
    BY_NAME,
    CHECKS,
    Difference,
    Progress,
    Step,
    Walk,
    differences,
    session,
    those,
)

__all__ = ["CHECKS", "Difference", "Progress", "Step", "Survey", "survey", "verify"]

SLICE_ROWS: Final = 50_000
_KEYS_AT_ONCE: Final = 1_000
# How often work that follows is awaited; each time it may be followed by more.
_ROUNDS: Final = 3
_POLL_SECONDS: Final = 0.05
# Whose work makes the tables follow.
_FOLLOWING: Final = "receiver IN ('user_gate', 'pending', 'notifier')"


@dataclass(slots=True)
class Survey:
    """What a walk found.

    Attributes:
        differences: what is wrong.
        unsettled: what seems wrong, but work that nobody does waits in the outbox.
        cut: checks that stopped at their most differences, so that there may be more.
        rows: looked at, each by every check that concerns it.
        seconds: that it took.
    """

    differences: list[Difference] = field(default_factory=list)
    unsettled: list[Difference] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0


def verify(
    conninfo: str,
    *,
    slice_rows: int = SLICE_ROWS,
    most: int = 1_000,
    progress: Progress | None = None,
) -> list[Difference]:
    """Check every rule of the index; the result is empty when all hold. See `survey`."""
    return survey(conninfo, slice_rows=slice_rows, most=most, progress=progress).differences


def survey(
    conninfo: str,
    *,
    slice_rows: int = SLICE_ROWS,
    most: int = 1_000,
    progress: Progress | None = None,
    settle_seconds: float = 3.0,
) -> Survey:
    """Check every rule of the index.

    Args:
        conninfo: of the database.
        slice_rows: rows that one query looks at, about; bounds how long a snapshot is held.
        most: differences after which a check stops, so that a ruined database fills no memory.
        progress: called before each check, after each slice and at the end.
        settle_seconds: after which work in the outbox that stands still is no longer awaited.

    Raises psycopg.Error: when the database cannot be reached or lacks a table (see `run.py
    migrate`).
    """
    assert slice_rows > 0, "a slice has at least one row"
    began = time.monotonic()
    result = Survey()
    candidates: dict[str, list[Difference]] = {check.name: [] for check in CHECKS}
    with session(conninfo, "verify") as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        walk = Walk(connection, CHECKS, slice_rows, progress)
        for checks, condition in walk.slices():
            with connection.transaction():
                for check in checks:
                    seen = candidates[check.name]
                    if len(seen) < most:
                        found = differences(connection, check, condition, most - len(seen))
                        seen += found
                        walk.found += len(found)
        with connection.transaction():
            confirmed = [one for seen in candidates.values() for one in again(connection, seen)]
            newest = _newest_work(connection)
        at_once = [one for one in confirmed if not BY_NAME[one.check].settles]
        late = [one for one in confirmed if BY_NAME[one.check].settles]
        settled, result.unsettled = _settle(connection, late, newest, settle_seconds)
    order = {name: number for number, name in enumerate(BY_NAME)}
    result.differences = sorted(at_once + settled, key=lambda one: order[one.check])
    result.cut = [name for name, seen in candidates.items() if len(seen) >= most]
    result.rows, result.seconds = walk.rows, time.monotonic() - began
    return result


def again(
    connection: psycopg.Connection, suspects: Sequence[Difference], *, any_detail: bool = False
) -> Iterator[Difference]:
    """Those of one check's suspects that are wrong now, as they are now.

    With `any_detail` whatever else is wrong with the same keys, too.
    """
    known = {(suspect.key, suspect.detail) for suspect in suspects}
    for start in range(0, len(suspects), _KEYS_AT_ONCE):
        some = suspects[start : start + _KEYS_AT_ONCE]
        check: Check = BY_NAME[some[0].check]
        for difference in differences(connection, check, those(check, some), None):
            if any_detail or (difference.key, difference.detail) in known:
                yield difference


def _settle(
    connection: psycopg.Connection,
    suspects: list[Difference],
    newest: int | None,
    seconds: float,
) -> tuple[list[Difference], list[Difference]]:
    """Those that are wrong once the work that was there is done, and those that stay open.

    `newest` is the newest work of the snapshot in which all of them were wrong, None for no work.
    """
    for _ in range(_ROUNDS):
        if not suspects or newest is None:
            return suspects, []
        if not _await_work(connection, newest, seconds):
            return [], suspects
        of_check: dict[str, list[Difference]] = {}
        for suspect in suspects:
            of_check.setdefault(suspect.check, []).append(suspect)
        with connection.transaction():
            suspects = [one for some in of_check.values() for one in again(connection, some)]
            newest = _newest_work(connection)
    return suspects, []


def _newest_work(connection: psycopg.Connection) -> int | None:
    """The newest work that waits, 0 for a purge that goes on, None for nothing."""
    row = connection.execute(
        f"SELECT (SELECT max(id) FROM engine_outbox WHERE {_FOLLOWING}),"
        " EXISTS (SELECT FROM engine_purges)"
    ).fetchone()
    assert row is not None
    newest: int | None = row[0]
    return 0 if newest is None and row[1] else newest


def _await_work(connection: psycopg.Connection, newest: int, seconds: float) -> bool:
    """Wait until the work up to `newest`, and every purge, is done.

    False when it stands still, at once where no run has the database that could do it.
    """
    before, since = None, time.monotonic()
    while True:
        row = connection.execute(
            f"SELECT (SELECT min(id) FROM engine_outbox WHERE {_FOLLOWING}"
            " AND id <= %s), (SELECT sum(removed + 1) FROM engine_purges)",
            [newest],
        ).fetchone()
        if row == (None, None):
            return True
        if row != before:
            before, since = row, time.monotonic()
        elif time.monotonic() - since > seconds or not _is_run(connection):
            return False
        time.sleep(_POLL_SECONDS)


def _is_run(connection: psycopg.Connection) -> bool:
    """Whether an engine has this database, by the lock that it holds as long as it lives."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database b ON b.oid = l.database"
        " WHERE b.datname = current_database() AND l.locktype = 'advisory' AND l.granted"
        " AND l.classid = 0 AND l.objid = %s AND l.objsubid = 1)",
        [OWNER_LOCK],
    ).fetchone()
    assert row is not None
    return bool(row[0])
