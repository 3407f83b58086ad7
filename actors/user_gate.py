"""The user gate: makes `users` rows, once for all shards.

Requests for DIDs that are known, or being made, cost no statement; the rest is made in batches, by
at most `max_concurrent_user_creations` statements at a time. Asks are answered when every row that
they want is durable; outbox work is deleted by the transaction that does it.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from actors.messages import CreateUsers, EnsureUsers, OutboxWork, SweepOutbox, UsersEnsured
from actors.recent import Recent
from actors.store import outbox
from actors.store.fence import Fence, RunReplaced
from actors.store.outage import Outage
from actors.store.session import (
    PASSING,
    Connection,
    DatabaseAway,
    SessionSettings,
    away,
    open_session,
    wait_for_session,
)
from actors.store.users import create_users
from engine.actor import Actor, Delivery
from engine.address import Address
from engine.context import Context
from engine.message import Codec, Message

log = structlog.get_logger()

# Rows of the outbox read at once by a sweep.
SWEEP_ROWS: Final = 200
# A lost message costs at most this long: the outbox is looked through even when nobody asks.
SWEEP_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class UserGateSettings:
    """What the gate needs to know; see config/default.toml for the meaning of each."""

    session: SessionSettings
    max_concurrent_user_creations: int
    batch_users: int
    known_cache: int


@dataclass(slots=True)
class _Waiter:
    """An ask that is answered when all of its DIDs have rows."""

    delivery: Delivery
    missing: set[str]


@dataclass(slots=True)
class _Job:
    """One statement: the DIDs it makes, the outbox rows it finishes."""

    dids: list[str]
    rows: list[int] = field(default_factory=list)
    made: int = 0
    error: BaseException | None = None


class UserGate(Actor):
    """Makes `users` rows."""

    def __init__(self, context: Context, settings: UserGateSettings) -> None:
        self._settings = settings
        self._codec = Codec((CreateUsers,))
        self._known = Recent(settings.known_cache)
        self._wanted: dict[str, None] = {}
        self._making: set[str] = set()
        self._waiters: list[_Waiter] = []
        self._work: deque[outbox.OutboxRow] = deque()
        self._expected: dict[Address, tuple[int, int]] = {}
        self._running = 0
        self._sweep_wanted = False
        self._done: deque[_Job] = deque()
        self._postponed = 0
        self._outage = Outage(
            "PostgreSQL is away: users are made when it is back",
            "PostgreSQL is back",
            context.clock.monotonic,
        )
        metrics = context.metrics
        self._created = metrics.counter("users_created_total", "Rows of users made")
        self._statements = metrics.counter("user_statements_total", "Creation statements")
        self._in_flight = metrics.gauge("user_statements_in_flight", "Creation statements now")
        self._gaps = metrics.counter("outbox_gaps_total", "Gaps in the numbering of work")
        super().__init__(context, settings)

    def on_start(self) -> None:
        """Take over from an older generation and do what it left."""
        context = self.context
        self._fence = Fence(context.name, context.epoch, context.generation)
        try:
            wait_for_session(
                self._settings.session,
                context.name,
                context.wait,
                context.clock.monotonic,
                self._fence.claim,
            ).close()
        except DatabaseAway as error:
            context.give_up(f"PostgreSQL stayed away: {error}", 69)
        except RunReplaced as replaced:
            context.give_up(str(replaced), 75)
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._executor = ThreadPoolExecutor(
            self._settings.max_concurrent_user_creations, thread_name_prefix="users"
        )
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        context.watch(self._wake, self._collect)
        self._sweep()

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        """Take requests and outbox work."""
        match message:
            case EnsureUsers(dids):
                missing = self._known.missing(dids)
                if not missing:
                    return UsersEnsured(0)
                self._waiters.append(_Waiter(delivery, missing))
                for did in missing - self._making:
                    self._wanted[did] = None
                self._dispatch()
            case OutboxWork(row, number, body):
                self._follow(delivery, number)
                self._work.append(outbox.OutboxRow(row, body))
                self._dispatch()
            case SweepOutbox():
                self._want_sweep()
            case _:
                raise TypeError(f"the user gate got a {type(message).__name__}")
        return None

    def on_stop(self) -> None:
        """Wait for the statements under way, and close their connections."""
        self._executor.shutdown(wait=True)
        for connection in self._connections:
            connection.close()
        self.context.unwatch(self._wake)
        os.close(self._wake)

    def _follow(self, delivery: Delivery, number: int) -> None:
        """Watch the numbering of a sender's work; a gap means that some was not sent along."""
        generation, last = self._expected.get(delivery.sender, (0, 0))
        if delivery.sender_generation != generation:
            last = 0
        if number != last + 1:
            self._gaps.add()
            self._want_sweep()
        self._expected[delivery.sender] = (delivery.sender_generation, number)

    def _want_sweep(self) -> None:
        if not self._sweep_wanted:
            self._sweep_wanted = True
            self._dispatch()

    def _sweep(self) -> None:
        self._want_sweep()
        self.context.after(SWEEP_SECONDS, self._sweep)

    def _dispatch(self) -> None:
        """Start statements while there is work and a free place among those in flight."""
        limit = self._settings.max_concurrent_user_creations
        while self._running < limit:
            job = self._next_job()
            if job is None:
                return
            self._running += 1
            self._in_flight.set(self._running)
            self._statements.add()
            self._making.update(job.dids)
            self._executor.submit(self._run, job)

    def _next_job(self) -> _Job | None:
        job = _Job([])
        dids: dict[str, None] = {}
        while self._work and len(dids) < self._settings.batch_users:
            work = self._work.popleft()
            message = self._codec.decode(work.body)
            assert isinstance(message, CreateUsers), message
            # Those being made elsewhere are made here as well: this transaction deletes the row of
            # the outbox, so it must not rest on another one that may yet fail.
            dids.update(dict.fromkeys(self._known.missing(message.dids)))
            job.rows.append(work.row)
        while self._wanted and len(dids) < self._settings.batch_users:
            did = next(iter(self._wanted))
            del self._wanted[did]
            dids[did] = None
        job.dids = list(dids)
        if job.dids or job.rows:
            return job
        if self._sweep_wanted and self._running == 0:
            self._sweep_wanted = False
            return self._read_left()
        return None

    def _read_left(self) -> _Job | None:
        """Turn what is left in the outbox into work; returns the first job of it."""
        try:
            left = self._with_connection(
                lambda connection: outbox.left_for(connection, self.context.name, SWEEP_ROWS)
            )
        except DatabaseAway as error:
            self._postpone(error, self._want_sweep)
            return None
        if not left:
            # Reading says nothing where it is writing that fails, as on a full disk.
            if not self._postponed:
                self._outage.succeeded()
            return None
        self._work.extend(left)
        if len(left) == SWEEP_ROWS:
            self._sweep_wanted = True
        return self._next_job()

    def _run(self, job: _Job) -> None:
        """Run one statement; called in a thread of the executor."""
        try:
            job.made = self._with_connection(
                lambda connection: create_users(connection, self._fence, job.dids, job.rows)
            )
        except BaseException as error:  # noqa: BLE001 - handed to the actor's own loop, which raises it
            job.error = error
        self._done.append(job)
        os.eventfd_write(self._wake, 1)

    def _with_connection(self, do: Callable[[Connection], Any]) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._local.connection = open_session(
                self._settings.session, self.context.name
            )
            self._connections.append(connection)
        try:
            with away():
                return do(connection)
        except DatabaseAway:
            connection.close()
            raise

    def _collect(self) -> None:
        """Take in the statements that ended; raises what made one fail for good."""
        os.eventfd_read(self._wake)
        while self._done:
            job = self._done.popleft()
            self._running -= 1
            self._in_flight.set(self._running)
            self._making.difference_update(job.dids)
            if isinstance(job.error, DatabaseAway):
                self._postponed += 1
                self._postpone(job.error, partial(self._again, job))
                continue
            if isinstance(job.error, PASSING):
                self._postponed += 1
                self.context.after(RETRY_SECONDS, partial(self._again, job))
                continue
            if isinstance(job.error, RunReplaced):
                self.context.give_up(str(job.error), 75)
            if job.error is not None:
                raise job.error
            self._outage.succeeded()
            self.context.crash_point("user_gate.created")
            self._created.add(job.made)
            self._known.update(job.dids)
            self._answer(set(job.dids), job.made)
        self._dispatch()

    def _postpone(self, away: DatabaseAway, again: Callable[[], None]) -> None:
        """Try again later, as long as an outage may last."""
        pause = self._outage.failed(away)
        if self._outage.seconds > self._settings.session.outage_seconds:
            self.context.give_up(f"PostgreSQL has made no users since: {away}", 69)
        self.context.after(pause, again)

    def _again(self, job: _Job) -> None:
        self._postponed -= 1
        self._wanted.update(dict.fromkeys(job.dids))
        if job.rows:
            self._want_sweep()
        self._dispatch()

    def _answer(self, made: set[str], created: int) -> None:
        waiting = []
        for waiter in self._waiters:
            waiter.missing -= made
            if not waiter.missing:
                waiter.delivery.reply(UsersEnsured(created))
            elif self.context.clock.monotonic() <= waiter.delivery.deadline:
                waiting.append(waiter)
            else:
                # Nobody waits any more; the rows are made all the same.
                waiter.delivery.skip()
        self._waiters = waiting
