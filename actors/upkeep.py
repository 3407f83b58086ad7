"""The registry's upkeep: each minute, in slices, what keeps it in bounds and honest.

The filter of awaited keys is made anew where it is worn; entries that are too old go, then the
oldest of too many; repositories that are refused no more are marked; and entries are compared with
the index, so that a subject that came unnoticed costs a minute and not the operation. What else
waits in tables, for whomever, is counted for operators.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog

from actors.settling import Settling
from actors.store import outbox, parking
from actors.store.fence import Fence
from actors.store.registry import Claim
from actors.store.registry_sweep import (
    DROPPED,
    EXPIRED,
    Key,
    Released,
    Standing,
    awaited_keys,
    drop_oldest,
    expire,
    overdue,
    release,
    standing,
)
from actors.store.session import Connection, TooSlow
from actors.store.writer import RECEIVERS
from actors.waiting_filter import WaitingFilter
from engine.context import Context
from engine.timer import Timer

log = structlog.get_logger()

T = TypeVar("T")
KINDS: Final = ("like", "repost", "like-via", "repost-via", "reply", "quote", "joined")
# From the beginning of one round to that of the next.
ROUND_SECONDS: Final = 60.0
# Entries of one slice: some tens of milliseconds. Other work has its turn in between.
SLICE_ROWS: Final = 5_000
PAUSE_SECONDS: Final = 0.005
# Long walks rest so many times as long as a slice took: they are in no hurry, shards are.
REST: Final = 4
# Work in the outbox is counted up to here, and shown as this much where there is more.
MOST_COUNTED: Final = 100_000
# Entries that a round compares with the index. Of more than these, each round takes the next ones.
RECONCILED_ROWS: Final = 100_000
# A round begins early when this part of the rows allowed may have been added since they were
# counted, but not for less than this many.
EARLY_PART: Final = 10
EARLY_ROWS: Final = 1_000


class Bounds(NamedTuple):
    """What may wait: seconds, entries, and bytes of their strings."""

    ttl_seconds: float
    max_rows: int
    max_bytes: int


class Attempt(Protocol):
    """Does something on the actor's connection, again until the database lets it."""

    def __call__(self, action: Callable[[Connection], T], /) -> T: ...


class Upkeep:
    """Rounds of upkeep, within the loop of the registry."""

    def __init__(
        self,
        context: Context,
        attempt: Attempt,
        fence: Fence,
        waiting: WaitingFilter,
        settling: Settling,
        bounds: Bounds,
    ) -> None:
        self._context = context
        self._attempt = attempt
        self._fence = fence
        self._filter = waiting
        self._settling = settling
        self._bounds = bounds
        self._steps: Iterator[Sequence[Claim]] | None = None
        self._next_round = 0.0
        self._timer: Timer | None = None
        self._pause = PAUSE_SECONDS
        self._at: Key | None = None
        # Keys that entries have been made for since they were counted.
        self._new_keys = 0
        metrics = context.metrics
        self._size = metrics.gauge("pending_filter_bytes", "Memory of the filter of awaited keys")
        self._missed = metrics.counter(
            "pending_reconciled_total", "Entries whose subject upkeep found in the index"
        )
        self._released = metrics.counter(
            "withheld_released_total", "Repositories that are refused no more"
        )
        self._waiting = {
            kind: metrics.gauge("pending_waiting", "Entries that wait", kind=kind) for kind in KINDS
        }
        self._oldest = {
            kind: metrics.gauge("pending_oldest_seconds", "Age of the oldest entry", kind=kind)
            for kind in KINDS
        }
        self._outbox = {
            receiver: metrics.gauge(
                "outbox_waiting", f"Work left for an actor (to {MOST_COUNTED})", receiver=receiver
            )
            for receiver in RECEIVERS
        }
        self._parked = {
            reason: metrics.gauge(
                "parked_accounts", "Accounts whose live events wait", reason=reason
            )
            for reason in (parking.RESYNC, *parking.KEYS)
        }
        self._parked_bytes = {
            reason: metrics.gauge("parked_bytes", "Bytes of those events", reason=reason)
            for reason in self._parked
        }

    def begin(self) -> None:
        """Begin a round, where none is under way."""
        if self._steps is None:
            if self._timer is not None:
                self._timer.cancel()
            self._next_round = self._context.clock.monotonic() + ROUND_SECONDS
            self._steps = self._round()
            self._soon()

    def heed(self, keys: int) -> None:
        """Take note that entries were made for so many keys; many of them begin a round early."""
        self._new_keys += keys
        if self._new_keys > max(EARLY_ROWS, self._bounds.max_rows // EARLY_PART):
            self.begin()

    def _soon(self) -> None:
        self._context.after(self._pause, self._step)

    def _step(self) -> None:
        """Do one slice; the next one when other work had its turn and what was found is settled."""
        assert self._steps is not None, "a step without a round"
        try:
            claims = next(self._steps)
        except StopIteration:
            self._rest()
        except TooSlow as slow:
            log.warning("upkeep of the registry takes too long: it goes on later", why=str(slow))
            self._rest()
        else:
            self._settling.send(claims, {}, self._soon)

    def _rest(self) -> None:
        self._steps = None
        pause = self._next_round - self._context.clock.monotonic()
        self._timer = self._context.after(max(0.0, pause), self.begin)

    def _do(self, action: Callable[..., T], *arguments: Any) -> T:
        """Do one slice on the connection, which is its first argument."""
        self._context.progress()
        self._pause = PAUSE_SECONDS
        return self._attempt(lambda connection: action(connection, *arguments))

    def _rest_from(self, began: float) -> None:
        """Have the next slice of a long walk wait, by what this one took."""
        took = self._context.clock.monotonic() - began
        self._pause = max(PAUSE_SECONDS, REST * took)

    def _round(self) -> Iterator[Sequence[Claim]]:
        """Do the slices of a round; each yields the entries that are to be claimed before the
        next.
        """
        if self._filter.worn:
            yield from self._fill_filter()
        yield from self._count_others()
        yield from self._expire()
        yield from self._keep_bounds()
        yield from self._release()
        yield from self._reconcile()

    def _fill_filter(self) -> Iterator[Sequence[Claim]]:
        self._filter.begin()
        after = ""
        while True:
            began = self._context.clock.monotonic()
            keys: list[str] = self._do(awaited_keys, after, SLICE_ROWS)
            self._filter.fill(set(keys))
            self._rest_from(began)
            if len(keys) < SLICE_ROWS:
                break
            after = keys[-1]
            yield ()
        self._filter.finish()
        self._size.set(self._filter.size)

    def _count_others(self) -> Iterator[Sequence[Claim]]:
        for receiver, gauge in self._outbox.items():
            gauge.set(self._do(outbox.depth_of, receiver, MOST_COUNTED))
        parked: dict[str, parking.Standing] = self._do(parking.standing)
        for reason, gauge in self._parked.items():
            found = parked.get(reason, parking.Standing(0, 0))
            gauge.set(found.accounts)
            self._parked_bytes[reason].set(found.size)
        yield ()

    def _expire(self) -> Iterator[Sequence[Claim]]:
        while True:
            gone = self._do(expire, self._fence, self._bounds.ttl_seconds, SLICE_ROWS)
            self._count_gone(EXPIRED, gone)
            yield ()
            if sum(gone.values()) < SLICE_ROWS:
                return

    def _keep_bounds(self) -> Iterator[Sequence[Claim]]:
        """Count what waits, and drop the oldest where that is too much."""
        self._new_keys = 0
        counted: dict[str, Standing] = self._do(standing)
        self._show(counted)
        rows = sum(kind.waiting for kind in counted.values()) - self._bounds.max_rows
        size = sum(kind.size for kind in counted.values()) - self._bounds.max_bytes
        if rows > 0 or size > 0:
            log.warning(
                "more operations wait than there is room for: the oldest are dropped; see max_rows"
                " and max_bytes of [pending]",
                rows=max(0, rows),
                bytes=max(0, size),
            )
        while rows > 0 or size > 0:
            gone, bytes_gone = self._do(
                drop_oldest, self._fence, max(0, rows), max(0, size), SLICE_ROWS
            )
            if not gone:
                return
            self._count_gone(DROPPED, gone)
            rows -= sum(gone.values())
            size -= bytes_gone
            yield ()

    def _release(self) -> Iterator[Sequence[Claim]]:
        after: str | None = ""
        while after is not None:
            released: Released = self._do(release, self._fence, after, SLICE_ROWS)
            self._released.add(released.amount)
            after = released.next
            yield ()

    def _reconcile(self) -> Iterator[Sequence[Claim]]:
        """Find entries whose subject is there; goes on where the last round stopped."""
        for _ in range(RECONCILED_ROWS // SLICE_ROWS):
            began = self._context.clock.monotonic()
            found = self._do(overdue, self._at or Key(), SLICE_ROWS)
            self._rest_from(began)
            self._at = found.next
            self._missed.add(len(found.claims))
            yield found.claims
            if self._at is None:
                return

    def _count_gone(self, action: str, gone: dict[str, int]) -> None:
        for kind, amount in gone.items():
            self._context.metrics.counter(
                "pending_total", "Entries of the registry", action=action, kind=kind
            ).add(amount)

    def _show(self, counted: dict[str, Standing]) -> None:
        for kind in KINDS:
            found = counted.get(kind, Standing(0, 0, 0.0))
            self._waiting[kind].set(found.waiting)
            self._oldest[kind].set(round(found.oldest, 3))
