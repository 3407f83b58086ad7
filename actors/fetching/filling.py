"""Fills the queue of what is missing from the tables, a slice at a time, for as long as it runs."""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from actors.lasting_session import LastingSession
from actors.store import wanted
from actors.store.wanted import Slice
from engine.context import Context

REPOS_AT_ONCE: Final = 1_000
RECORDS_AT_ONCE: Final = 2_000
USERS_AT_ONCE: Final = 2_000
SWEPT_AT_ONCE: Final = 2_000
# A batch's time is that of its beginning, so entries become visible later than they say.
OVERLAP_SECONDS: Final = 120.0
# All that waits is looked through at the start and now and then, should some have been missed.
RECORDS_AGAIN_SECONDS: Final = 3_600.0
USERS_AGAIN_SECONDS: Final = 30.0
SWEEP_AGAIN_SECONDS: Final = 300.0
PARKED_SECONDS: Final = 60.0
# After each look there is a rest of so many times its length.
SHARE: Final = 9.0


class Wants(NamedTuple):
    """What is fetched: single records that are waited for, profiles, repositories out of step, and
    with `whole` the repository of every account that was seen.

    `patience` is how many seconds a record has to come by itself, `failed` for how many it is
    remembered that one could not be had. `personal`: no profiles of those who are only spoken of.
    """

    records: bool
    profiles: bool
    repos: bool
    whole: bool
    patience: float
    failed: float
    personal: bool = False


Done = tuple[int, float]
"""How many rows changed, and for how many seconds nothing more is to be done."""


class _Chore:
    """Something to do again and again, in a tenth of the time at most."""

    def __init__(self, do: Callable[[], Done], now: Callable[[], float]) -> None:
        self._do = do
        self._now = now
        self._rests_until = 0.0

    def go(self) -> int:
        """Do it, unless it rests; returns how many rows changed."""
        began = self._now()
        if began < self._rests_until:
            return 0
        changed, rest = self._do()
        ended = self._now()
        self._rests_until = ended + max(rest, SHARE * (ended - began))
        return changed


class _Walk:
    """Through a table by its keys, a slice each time, and then again."""

    def __init__(self, step: Callable[[str], Slice], again: float) -> None:
        self._step = step
        self._again = again
        self._after = ""

    def __call__(self) -> Done:
        last, changed = self._step(self._after)
        self._after = last or ""
        return changed, self._again if last is None else 0.0


class Filling:
    """Fills the queue.

    Args:
        context: the actor's.
        session: the actor's.
        wants: what is fetched.
        seconds: between two slices of each kind.
        filled: called when something new is in the queue.
    """

    def __init__(
        self,
        context: Context,
        session: LastingSession,
        wants: Wants,
        seconds: float,
        filled: Callable[[], None],
    ) -> None:
        self._context = context
        self._session = session
        self._wants = wants
        self._seconds = seconds
        self._filled = filled
        chores = [
            self._walk(
                wanted.sweep, SWEEP_AGAIN_SECONDS, limit=SWEPT_AT_ONCE, failed_seconds=wants.failed
            )
        ]
        if wants.repos:
            chores += [self._walk(wanted.repos, 0.0, limit=REPOS_AT_ONCE), self._let_go]
        if wants.records:
            until, limit = wants.patience, RECORDS_AT_ONCE
            again = RECORDS_AGAIN_SECONDS
            since = until + OVERLAP_SECONDS
            chores += [
                self._walk(wanted.records, again, until=until, limit=limit),
                self._walk(wanted.new_records, 0.0, since=since, until=until, limit=limit),
            ]
        if wants.profiles or wants.whole:
            more = {"whole": wants.whole, "spoken_of": not wants.personal}
            walk = self._walk(wanted.users, USERS_AGAIN_SECONDS, limit=USERS_AT_ONCE, **more)
            chores.append(walk)
        self._chores = [_Chore(do, context.clock.monotonic) for do in chores]
        self._new = context.metrics.counter(
            "fetch_wanted_total", "Things that were found to be missing"
        )

    def start(self) -> None:
        """Begin, and go on."""
        self._let_go(everybody=True)
        self._tick()

    def _tick(self) -> None:
        found = sum(chore.go() for chore in self._chores)
        if found:
            self._new.add(found)
            self._filled()
        self._context.after(self._seconds, self._tick)

    def _walk(self, step: Callable[..., Slice], again: float, **more: object) -> Callable[[], Done]:
        session, fence = self._session, self._session.fence
        return _Walk(
            lambda after: session.attempt(partial(step, fence=fence, after=after, **more)), again
        )

    def _let_go(self, *, everybody: bool = False) -> Done:
        self._session.attempt(
            partial(wanted.let_go, fence=self._session.fence, everybody=everybody)
        )
        return 0, PARKED_SECONDS
