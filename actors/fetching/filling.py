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


class Wants(NamedTuple):
    """What is fetched: single records that are waited for, profiles, repositories out of step, and
    with `whole` the repository of every account that was seen.

    `patience` is how many seconds a record has to come by itself, `failed` for how many it is
    remembered that one could not be had.
    """

    records: bool
    profiles: bool
    repos: bool
    whole: bool
    patience: float
    failed: float


class _Pass:
    """A walk through a table by its keys, again and again."""

    def __init__(self, step: Callable[[str], Slice], again: float) -> None:
        self._step = step
        self._again = again
        self._after = ""
        self._rests_until = 0.0

    def go(self, now: float) -> int:
        """Do one slice, unless it rests; returns how many rows changed."""
        if now < self._rests_until:
            return 0
        last, changed = self._step(self._after)
        self._after = last or ""
        if last is None:
            self._rests_until = now + self._again
        return changed


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
        self._parked_at = 0.0
        fence = session.fence

        def walk(step: Callable[..., Slice], again: float, **more: object) -> _Pass:
            return _Pass(
                lambda after: session.attempt(partial(step, fence=fence, after=after, **more)),
                again,
            )

        self._passes = [
            walk(
                wanted.sweep, SWEEP_AGAIN_SECONDS, limit=SWEPT_AT_ONCE, failed_seconds=wants.failed
            )
        ]
        if wants.repos:
            self._passes.append(walk(wanted.repos, 0.0, limit=REPOS_AT_ONCE))
        if wants.records:
            self._passes.append(
                walk(
                    wanted.records,
                    RECORDS_AGAIN_SECONDS,
                    until=wants.patience,
                    limit=RECORDS_AT_ONCE,
                )
            )
        if wants.profiles or wants.whole:
            self._passes.append(
                walk(wanted.users, USERS_AGAIN_SECONDS, limit=USERS_AT_ONCE, whole=wants.whole)
            )
        self._new = context.metrics.counter(
            "fetch_wanted_total", "Things that were found to be missing"
        )

    def start(self) -> None:
        """Begin, and go on."""
        self._tick()

    def _tick(self) -> None:
        now = self._context.clock.monotonic()
        found = sum(each.go(now) for each in self._passes)
        fence, wants = self._session.fence, self._wants
        if wants.repos and now >= self._parked_at:
            self._session.attempt(partial(wanted.parked, fence=fence))
            self._parked_at = now + PARKED_SECONDS
        if wants.records:
            since = wants.patience + OVERLAP_SECONDS
            found += self._session.attempt(
                partial(wanted.new_records, fence=fence, since=since, until=wants.patience)
            )
        if found:
            self._new.add(found)
            self._filled()
        self._context.after(self._seconds, self._tick)
