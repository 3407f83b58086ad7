"""The base of the actors that live from the outbox: what shards leave there for them is done once.

Work arrives as messages, and lies in `engine_outbox` all the same, where the transaction that does
it deletes it. So a message is only a hint: one that is lost, or finds no room, is read from the
table. While there may be any such work the actor is *behind*: it heeds no message, since whatever
one holds is in the table too, and reads that from its beginning until nothing is left. So work is
done in the order of its rows, but for rows of two senders that crossed.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from actors.lasting_session import LastingSession
from actors.messages import OutboxWork, SweepOutbox
from actors.numbering import Numbering
from actors.store import outbox
from actors.store.session import (
    REFUSALS,
    Connection,
    DatabaseAway,
    SessionSettings,
    TooSlow,
    one_line,
)
from engine.actor import Actor, Delivery
from engine.context import Context
from engine.errors import UnknownMessage
from engine.message import Codec, Message
from engine.metrics import COUNTS
from engine.timer import Timer

log = structlog.get_logger()

# What is done in one transaction; it bounds the time that one takes.
BATCH_ROWS: Final = 200
BATCH_BYTES: Final = 512 * 1024
# Work in hand, begun and not; what comes beyond is read from the table when there is room again.
HELD_BYTES: Final = 4 * 1024 * 1024
# How long work waits for more, so that one transaction does it all.
LINGER_SECONDS: Final = 0.025
# A lost message costs at most this long: the table is looked through even when nobody asks.
SWEEP_SECONDS: Final = 60.0

Body = TypeVar("Body", bound=Message)
T = TypeVar("T")


class Work(NamedTuple, Generic[Body]):
    """One piece of work: its row in the outbox, what is to be done, its size in bytes, and the
    monotonic second since which it has waited.
    """

    row: int
    body: Body
    size: int
    since: float


class OutboxActor(Actor, Generic[Body]):
    """Does the work that others leave in the outbox under its name.

    A subclass says in `do` what that is. It may do other things on the same connection by
    `attempt`, and finish a row later than in `do` by `finish`.

    Args:
        context: the actor's door to everything outside.
        settings: what the topology gives to the actor.
        session: how to connect.
        body: the message that its work consists of.

    Attributes:
        fence: its right to write; every transaction must check it.
    """

    def __init__(
        self, context: Context, settings: Any, session: SessionSettings, body: type[Body]
    ) -> None:
        self._session = LastingSession(context, session, self.prepare)
        self.fence = self._session.fence
        self._body = body
        self._codec = Codec((body,))
        self._behind = True
        self._held: dict[int, Work[Body]] = {}
        self._held_bytes = 0
        # Rows that `do` has begun and not finished, with their sizes.
        self._begun: dict[int, int] = {}
        self._begun_bytes = 0
        self._finished: list[int] = []
        self._timer: Timer | None = None
        metrics = context.metrics
        self._numbering = Numbering(metrics)
        self._works = metrics.counter("outbox_works_total", "Pieces of work done")
        self._reads = metrics.counter("outbox_reads_total", "Times the outbox was read")
        self._buried = metrics.counter(
            "outbox_buried_total", "Pieces of work that PostgreSQL refuses"
        )
        self._in_hand = metrics.gauge("outbox_held_bytes", "Work in hand")
        self._lag = metrics.gauge("outbox_lag_seconds", "How long the last work waited to be done")
        self._seconds = metrics.histogram("batch_seconds", "Doing a batch of work")
        self._sizes = metrics.histogram("batch_works", "Pieces of work in a batch", buckets=COUNTS)
        super().__init__(context, settings)

    def do(self, connection: Connection, works: Sequence[Work[Body]]) -> Collection[int]:
        """Do some work in one transaction, which checks the fence; in the order of the rows.

        It may be called again with work that was done before: after a crash, or where the answer to
        a commit was lost. Of what PostgreSQL takes too long for, or refuses, it is called again
        with the halves; what is refused alone becomes a dead letter.

        Returns:
            The rows that are finished: this transaction has deleted them from the outbox. For the
            others call `finish` some day; until then they are neither read nor taken again.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what its work is")

    def prepare(self, connection: Connection) -> None:
        """Make ready a connection that was just opened, before the actor uses it."""

    def finish(self, rows: Collection[int]) -> None:
        """Have rows deleted that `do` began and left; soon, in a transaction of their own."""
        self._finished += rows
        self._flush_soon()

    def attempt(self, action: Callable[[Connection], T], *, reads: bool = False) -> T:
        """See `LastingSession.attempt`; what takes too long raises TooSlow."""
        return self._session.attempt(action, parted=True, reads=reads)

    def on_start(self) -> None:
        """Connect, take over from an older generation, and begin with what it left."""
        self._session.open()
        self._sweep()

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        """Take work."""
        match message:
            case OutboxWork(row, number, body):
                if self._numbering.breaks(delivery, number):
                    self._fall_behind()
                self._hold(row, body)
            case SweepOutbox():
                self._fall_behind()
            case _:
                return super().receive(message, delivery)
        return None

    def on_drain(self) -> None:
        """Do what is held; what lies in the table is for the next start."""
        self._behind = False
        self._flush()
        super().on_drain()

    def on_stop(self) -> None:
        """Close the connection."""
        self._session.close()

    def _hold(self, row: int, body: bytes) -> None:
        if self._behind or row in self._begun or row in self._held:
            return
        if self._held_bytes + self._begun_bytes >= HELD_BYTES:
            self._fall_behind()
            return
        work = self._decoded(row, body, self.context.clock.monotonic())
        if work is None:
            return
        self._held[row] = work
        self._held_bytes += work.size
        if self._held_bytes >= BATCH_BYTES or len(self._held) >= BATCH_ROWS:
            self._flush()
        else:
            self._flush_soon()

    def _decoded(self, row: int, body: bytes, since: float) -> Work[Body] | None:
        """Decode work; None, and it is buried, where it is none of ours."""
        try:
            message = self._codec.decode(body)
        except UnknownMessage as unknown:
            self._bury(row, str(unknown))
            return None
        assert isinstance(message, self._body), message
        return Work(row, message, len(body), since)

    def _fall_behind(self) -> None:
        """From now on read the table; what is held is there as well, in order."""
        self._behind = True
        self._held, self._held_bytes = {}, 0
        self._flush_soon(0.0)

    def _sweep(self) -> None:
        self._fall_behind()
        self.context.after(SWEEP_SECONDS, self._sweep)

    def _flush_soon(self, seconds: float = LINGER_SECONDS) -> None:
        if self._timer is not None and self._timer.callback is not None:
            if self._timer.at <= self.context.clock.monotonic() + seconds:
                return
            self._timer.cancel()
        self._timer = self.context.after(seconds, self._flush)

    def _flush(self) -> None:
        """Do one batch, of what is held or of what is read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._finish_rows()
        if self._behind and self._begun_bytes < HELD_BYTES:
            works = self._read()
        else:
            # Shards commit side by side: what they said may have crossed.
            works = [self._held[row] for row in sorted(self._held)]
            self._held, self._held_bytes = {}, 0
        if works:
            self._do(works)
        self._in_hand.set(self._begun_bytes + self._held_bytes)
        if self._behind and self._begun_bytes < HELD_BYTES:
            self._flush_soon(0.0)

    def _read(self) -> list[Work[Body]]:
        """Read a batch from the table; with nothing left there the actor is behind no more."""
        self._reads.add()
        name, begun = self.context.name, tuple(self._begun)
        rows = self.attempt(
            lambda connection: outbox.left_for(connection, name, BATCH_ROWS, BATCH_BYTES, begun),
            reads=True,
        )
        if not rows:
            self._behind = False
        now = self.context.clock.monotonic()
        found = [self._decoded(row.row, row.body, now - row.age) for row in rows]
        return [work for work in found if work is not None]

    def _do(self, works: list[Work[Body]]) -> None:
        began = self.context.clock.monotonic()
        try:
            finished = set(self.attempt(lambda connection: self.do(connection, works)))
        except (TooSlow, *REFUSALS) as error:
            self._do_parts(works, error)
            return
        for work in works:
            if work.row not in finished:
                self._begun[work.row] = work.size
                self._begun_bytes += work.size
        now = self.context.clock.monotonic()
        self._works.add(len(works))
        self._sizes.observe(len(works))
        self._seconds.observe(now - began)
        self._lag.set(max(0.0, now - min(work.since for work in works)))
        self.context.progress()

    def _do_parts(self, works: list[Work[Body]], error: Exception) -> None:
        """Do the halves of what was too much, or refused; one that is refused alone is buried."""
        middle = len(works) // 2
        if middle:
            self._do(works[:middle])
            self._do(works[middle:])
        elif isinstance(error, TooSlow):
            self._session.wait_out(DatabaseAway(str(error)))
            self._fall_behind()
        else:
            self._bury(works[0].row, one_line(error))

    def _finish_rows(self) -> None:
        """Delete what `finish` was called for."""
        rows, self._finished = self._finished, []
        if not rows:
            return

        def delete(connection: Connection) -> None:
            with connection.transaction():
                self.fence.check(connection)
                outbox.finish(connection, rows)

        self.attempt(delete)
        for row in rows:
            self._begun_bytes -= self._begun.pop(row, 0)

    def _bury(self, row: int, reason: str) -> None:
        """Put aside what can never be done, so that it holds up nothing else."""
        log.error(
            "work of the outbox cannot be done: it is kept in engine_dead_letters",
            row=row,
            reason=reason,
        )
        self._buried.add()

        def bury(connection: Connection) -> None:
            with connection.transaction():
                self.fence.check(connection)
                outbox.bury(connection, row, reason)

        self.attempt(bury)
