"""`run.py verify --repair`: puts right what verify finds, beside a running engine if there is one.

The walk is that of verify: slice by slice, one check after the other. What seems wrong in a slice
is mended at once, some hundred keys to a transaction, so nothing is collected however much has
drifted, and a repair that is interrupted has mended what it came by.

**Why no interleaving with the engine leaves a wrong value.** Whatever the engine writes to these
tables, it writes in transactions that hold the fence's lock shared from their first statement to
their commit (`fence`). A transaction of the repair takes that lock alone. So while it runs no
transaction of the engine is under way: each has committed, and is seen, or has written nothing
yet, and will see what the repair has written, since it reads only after it has the lock. With the
lock held the repair looks at its keys anew, in a statement that begins after that, and computes
what it writes from the rows themselves, never from what was found without the lock. A counter is
therefore the number of its rows at a moment when nobody changes either, and every later change
adds its own difference to it. What the repair writes between those moments is a set of states that
the engine could have written by itself, so a crash at any point leaves nothing half done.

A server that writes to these tables without the fence (bookmarks, muted threads) meets the repair
at the rows' own locks: the row of a counter is locked before its rows are counted.

The lock is asked for with a short limit, and given back within a fraction of a second: the number
of keys follows the time that the last ones took. Where somebody had to be waited for, the engine
gets as much time for itself as the repair took.

Where one thing rests on another it is mended after it: accounts and duplicates, then quotes,
judgements, counters, waits, notifications. A walk that mended anything is followed by another, so
what is said to be mended has been looked at again.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection, errors

from actors.records.record import AggregateTable
from actors.store.arrays import register
from actors.store.fence import FENCE_LOCK
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.repair_counts import AGGREGATES, mend_counts, mend_viewers
from actors.store.repair_derived import (
    mend_feed_items,
    mend_flags,
    mend_gates,
    mend_quotes,
    mend_threads,
)
from actors.store.repair_notifications import mend_notifications, mend_pending
from actors.store.repair_records import (
    mend_accounts,
    mend_duplicates,
    mend_purges,
    mend_users,
)
from actors.store.verify import SLICE_ROWS, again
from actors.store.verify_checks import Check
from actors.store.verify_walk import CHECKS, Difference, Progress, Walk, differences, session

__all__ = ["Mended", "repair"]

# Walks after which a repair gives up; two are usual, one that mends and one that finds nothing.
_WALKS: Final = 6
# How long the fence is held, and how many keys it may be for.
_HOLD_SECONDS: Final = 0.15
_FIRST_KEYS: Final = 200
_MOST_KEYS: Final = 5_000
# Longer than this, and what was begun with several keys is begun again with fewer.
_STATEMENT_SECONDS: Final = 10.0
# How long the engine is made to wait while it is waited for, and for how long that is tried.
_LOCK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 120.0
_PASSING: Final = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)
_MOST_LEFT: Final = 1_000

# Mends what is wrong; may return more keys for the same check to look at.
Mender = Callable[[Connection[Any], Sequence[Difference]], Sequence[str] | None]


def _by_key(mend: Callable[[Connection[Any], Sequence[str]], Sequence[str] | None]) -> Mender:
    return lambda connection, found: mend(connection, sorted({one.key for one in found}))


def _counts(table: AggregateTable) -> Mender:
    return _by_key(lambda connection, keys: mend_counts(connection, table, keys))


_MENDERS: Final[dict[str, Mender]] = {
    **{name: _counts(table) for name, table in AGGREGATES.items()},
    "post_viewer_states": lambda connection, found: mend_viewers(
        connection, [(one.key, one.detail) for one in found]
    ),
    "quotes": _by_key(mend_quotes),
    "feed_items": _by_key(mend_feed_items),
    "thread_contexts": _by_key(mend_threads),
    "gates": _by_key(mend_gates),
    "flags": _by_key(mend_flags),
    "duplicates": _by_key(mend_duplicates),
    "users": _by_key(mend_users),
    "accounts": _by_key(mend_accounts),
    "purges": _by_key(mend_purges),
    "pending": lambda connection, found: mend_pending(
        connection, [(one.key, one.detail) for one in found]
    ),
    "notifications": lambda connection, found: mend_notifications(
        connection, [one.detail for one in found]
    ),
}


@dataclass(slots=True)
class Mended:
    """What a repair did.

    Attributes:
        mended: differences by check. One thing that is wrong may be several of them.
        left: what is still wrong (at most a thousand).
        walks: through all checks.
        rows: looked at, each by every check that concerns it.
        seconds: that it took.
        held: the longest time that the engine's writers were kept out.
    """

    mended: Counter[str] = field(default_factory=Counter)
    left: list[Difference] = field(default_factory=list)
    walks: int = 0
    rows: int = 0
    seconds: float = 0.0
    held: float = 0.0


def repair(
    conninfo: str, *, slice_rows: int = SLICE_ROWS, progress: Progress | None = None
) -> Mended:
    """Mend every difference; see verify for what is one.

    `slice_rows` and `progress` are those of verify. Raises psycopg.Error when the database cannot
    be reached, lacks a table or refuses to be written to, DatabaseRefused where the writers of the
    engine leave no moment for it.
    """
    assert slice_rows > 0, "a slice has at least one row"
    began = time.monotonic()
    result = Mended()
    with session(conninfo, "repair") as connection:
        register(connection)
        slices = _Slices(connection, slice_rows, result)
        while result.walks < _WALKS:
            before = result.mended.total()
            result.left = []
            walk = Walk(connection, CHECKS, slice_rows, progress)
            for checks, condition in walk.slices():
                for check in checks:
                    slices.mend(check, condition)
                walk.found = result.mended.total()
            result.walks += 1
            result.rows += walk.rows
            if result.mended.total() == before:
                break
    result.seconds = time.monotonic() - began
    return result


class _Slices:
    """Mends slices on one connection; learns how many keys fit into the time it may take."""

    def __init__(self, connection: Connection[Any], slice_rows: int, result: Mended) -> None:
        self._connection = connection
        self._slice_rows = slice_rows
        self._result = result
        self._keys: dict[str, int] = {}

    def mend(self, check: Check, condition: Any) -> None:
        """Mend what a check finds in a slice."""
        while True:
            found = differences(self._connection, check, condition, self._slice_rows)
            mended = sum(self._mend_some(check, found))
            # A range may hold more rows than a slice where one value has many.
            if len(found) < self._slice_rows or not mended:
                return

    def _mend_some(self, check: Check, suspects: list[Difference]) -> list[int]:
        done = []
        while suspects:
            keys = self._keys.get(check.mend, _FIRST_KEYS)
            some, suspects = suspects[:keys], suspects[keys:]
            mended, left, more = self._alone(check, some)
            done.append(mended)
            self._result.mended[check.name] += mended
            self._result.left += left[: max(0, _MOST_LEFT - len(self._result.left))]
            suspects += [Difference(check.name, key, "", "", "") for key in more]
        return done

    def _alone(
        self, check: Check, suspects: list[Difference]
    ) -> tuple[int, list[Difference], Sequence[str]]:
        """Mend these as the only writer.

        Returns how many were wrong and are not any more, those that still are, and keys that the
        same check is to look at because of that.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            asked = time.monotonic()
            try:
                return self._try_alone(check, suspects)
            except errors.QueryCanceled:
                self._keys[check.mend] = half = max(1, len(suspects) // 2)
                parts = [
                    self._alone(check, suspects[start : start + half])
                    for start in range(0, len(suspects), half)
                ]
                return (
                    sum(mended for mended, _, _ in parts),
                    [one for _, left, _ in parts for one in left],
                    [key for _, _, more in parts for key in more],
                )
            except _PASSING as error:
                if time.monotonic() > deadline:
                    raise DatabaseRefused(
                        Reason.LOCKED,
                        f"the writers of the engine left no moment for {check.name}"
                        f" within {_PATIENCE_SECONDS:.0f} s: try again later, or stop the engine",
                    ) from error
                time.sleep(max(_LOCK_SECONDS, time.monotonic() - asked))

    def _try_alone(
        self, check: Check, suspects: list[Difference]
    ) -> tuple[int, list[Difference], Sequence[str]]:
        connection = self._connection
        asked = time.monotonic()
        with connection.transaction():
            limit = _STATEMENT_SECONDS if len(suspects) > 1 else 0
            connection.execute(
                f"SET LOCAL lock_timeout = '{_LOCK_SECONDS * 1000:.0f}ms';"
                f" SET LOCAL statement_timeout = '{limit * 1000:.0f}ms'"
            )
            connection.execute(f"SELECT pg_advisory_xact_lock({FENCE_LOCK})")
            began = time.monotonic()
            wrong = list(again(connection, suspects, any_detail=True))
            left: list[Difference] = []
            more: Sequence[str] = ()
            if wrong:
                more = _MENDERS[check.mend](connection, wrong) or ()
                left = list(again(connection, wrong))
        held = time.monotonic() - began
        self._result.held = max(self._result.held, held)
        keys = len(suspects)
        if held > 2 * _HOLD_SECONDS:
            self._keys[check.mend] = max(1, keys // 2)
        elif held < _HOLD_SECONDS / 2 and keys >= self._keys.get(check.mend, _FIRST_KEYS):
            self._keys[check.mend] = min(_MOST_KEYS, 2 * keys)
        if began - asked > 0.005:
            time.sleep(held)
        return len(wrong) - len(left), left, more
