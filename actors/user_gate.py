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

from actors.lasting_session import LastingSession
from actors.messages import CreateUsers, EnsureUsers, OutboxWork, SweepOutbox, UsersEnsured
from actors.numbering import Numbering
from actors.recent import Recent
from actors.store import outbox
from actors.store.fence import RunReplaced
from actors.store.outage import Outage
from actors.store.session import (
    PASSING,
    REFUSALS,
    Connection,
    DatabaseAway,
    DatabaseUnusable,
    SessionSettings,
    TooSlow,
    one_line,
    open_session,
    writing,
)
from actors.store.users import create_users
from engine.actor import Actor, Delivery
from engine.context import Context
from engine.message import Codec, Message

log = structlog.get_logger()

# Rows of the outbox read at once by a sweep.
SWEEP_ROWS: Final = 200
# Work held in memory; what comes beyond is read from the outbox later.
HELD_BYTES: Final = 4 * 1024 * 1024
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
    """What a thread does: make `dids` and finish `rows` of the outbox, or read what is `left`.

    `authors` are those that a shard asked for, as they write just now.
    """

    dids: list[str] = field(default_factory=list)
    authors: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    sweeps: bool = False
    made: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    left: list[outbox.OutboxRow] = field(default_factory=list)
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
        self._work_bytes = 0
        # Rows of the outbox that are in `_work` or with a thread.
        self._rows: set[int] = set()
        self._running = 0
        self._sweep_wanted = False
        self._sweeping = False
        self._more_left = False
        self._done: deque[_Job] = deque()
        self._writing_fails = False
        self._outage = Outage(
            "PostgreSQL is away: users are made when it is back",
            "PostgreSQL is back",
            context.clock.monotonic,
        )
        metrics = context.metrics
        self._created = metrics.counter("users_created_total", "Rows of users made")
        self._statements = metrics.counter("user_statements_total", "Creation statements")
        self._in_flight = metrics.gauge("user_statements_in_flight", "Creation statements now")
        self._numbering = Numbering(metrics)
        self._outages = metrics.counter("database_outages_total", "Times PostgreSQL was away")
        self._refused = metrics.counter("users_refused_total", "DIDs that PostgreSQL refuses")
        super().__init__(context, settings)

    def on_start(self) -> None:
        """Take over from an older generation and do what it left."""
        context = self.context
        # Each thread connects by itself.
        claim = LastingSession(context, self._settings.session)
        claim.open()
        claim.close()
        self._fence = claim.fence
        self._local = threading.local()
        self._connections: dict[int, Connection] = {}
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
                if self._numbering.breaks(delivery, number):
                    self._want_sweep()
                self._hold(outbox.OutboxRow(row, body))
                self._dispatch()
            case SweepOutbox():
                self._want_sweep()
            case _:
                raise TypeError(f"the user gate got a {type(message).__name__}")
        return None

    def on_stop(self) -> None:
        """Wait for the statements under way, and close their connections."""
        self._executor.shutdown(wait=True)
        for connection in self._connections.values():
            connection.close()
        self.context.unwatch(self._wake)
        os.close(self._wake)

    def _hold(self, work: outbox.OutboxRow) -> bool:
        """Keep work to do; False where it is held already, or there is no room for it.

        What there is no room for is in the table, and a sweep finds it later.
        """
        if work.row in self._rows:
            return False
        if self._work_bytes >= HELD_BYTES:
            self._sweep_wanted = True
            return False
        self._rows.add(work.row)
        self._work.append(work)
        self._work_bytes += len(work.body)
        return True

    def _want_sweep(self) -> None:
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
            self._making.update(job.dids)
            if not job.sweeps:
                self._statements.add()
            self._in_flight.set(self._running)
            self._executor.submit(self._run, job)

    def _next_job(self) -> _Job | None:
        job = _Job()
        dids: dict[str, None] = {}
        while self._work and len(dids) < self._settings.batch_users:
            work = self._work.popleft()
            self._work_bytes -= len(work.body)
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
            job.authors.append(did)
        job.dids = list(dids)
        if job.dids or job.rows:
            return job
        if self._sweep_wanted and not self._sweeping:
            self._sweep_wanted, self._sweeping = False, True
            job.sweeps = True
            return job
        return None

    def _run(self, job: _Job) -> None:
        """Do one job; called in a thread of the executor."""
        try:
            if job.sweeps:
                job.left = self._with_connection(self._read_left)
            else:
                job.made = self._with_connection(partial(self._create, job))
        except BaseException as error:  # noqa: BLE001 - handed to the actor's own loop, which raises it
            job.error = error
        self._done.append(job)
        os.eventfd_write(self._wake, 1)

    def _read_left(self, connection: Connection) -> list[outbox.OutboxRow]:
        return outbox.left_for(connection, self.context.name, SWEEP_ROWS, HELD_BYTES)

    def _create(self, job: _Job, connection: Connection) -> int:
        """Make the users of a job; where PostgreSQL refuses one of them, the others."""
        try:
            return create_users(connection, self._fence, job.dids, job.rows, job.authors)
        except REFUSALS:
            made = 0
        for did in job.dids:
            try:
                made += create_users(connection, self._fence, [did], (), job.authors)
            except REFUSALS as refusal:
                job.refused[did] = one_line(refusal)
        create_users(connection, self._fence, [], job.rows)
        return made

    def _with_connection(self, do: Callable[[Connection], Any]) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._local.connection = open_session(
                self._settings.session, self.context.name
            )
            self._connections[threading.get_ident()] = connection
        try:
            with writing():
                return do(connection)
        except DatabaseAway:
            connection.close()
            raise

    def _collect(self) -> None:
        """Take in the jobs that ended; raises what made one fail for good."""
        os.eventfd_read(self._wake)
        while self._done:
            job = self._done.popleft()
            self._running -= 1
            self._in_flight.set(self._running)
            self._making.difference_update(job.dids)
            self._rows.difference_update(job.rows)
            if job.sweeps:
                self._sweeping = False
            error = job.error
            if error is None:
                self._take_in(job)
            elif isinstance(error, DatabaseAway):
                self._writing_fails = self._writing_fails or not job.sweeps
                self._postpone(error, partial(self._again, job))
            elif isinstance(error, (TooSlow, *PASSING)):
                self.context.after(RETRY_SECONDS, partial(self._again, job))
            elif isinstance(error, RunReplaced):
                self.context.give_up(str(error), 75)
            elif isinstance(error, DatabaseUnusable):
                self.context.give_up(f"PostgreSQL refuses to make users: {error}", 78)
            else:
                raise error
        self._dispatch()

    def _take_in(self, job: _Job) -> None:
        """Take in what a job has done."""
        if job.sweeps:
            held = [self._hold(work) for work in job.left]
            # Behind a full page there may be more, hidden until what is with threads is done.
            self._more_left = len(held) == SWEEP_ROWS
            self._sweep_wanted = self._sweep_wanted or (self._more_left and any(held))
            # Reading says nothing where it is writing that fails, as on a full disk.
            if not self._writing_fails:
                self._outage.succeeded()
            return
        self._writing_fails = False
        self._outage.succeeded()
        self._sweep_wanted = self._sweep_wanted or (self._more_left and bool(job.rows))
        self.context.crash_point("user_gate.created")
        self._created.add(job.made)
        for did, reason in job.refused.items():
            self._refused.add()
            log.warning("PostgreSQL refuses a user", did=did[:100], reason=reason)
        self._known.update(job.dids)
        self._answer(set(job.dids), job.made)

    def _postpone(self, away: DatabaseAway, again: Callable[[], None]) -> None:
        """Try again later, as long as an outage may last."""
        if not self._outage.goes_on:
            self._outages.add()
        pause = self._outage.failed(away)
        if self._outage.seconds > self._settings.session.outage_seconds:
            self.context.give_up(f"PostgreSQL has made no users since: {away}", 69)
        self.context.after(pause, again)

    def _again(self, job: _Job) -> None:
        self._wanted.update(dict.fromkeys(job.dids))
        # Rows of the outbox are still there, and are found by reading it.
        self._sweep_wanted = self._sweep_wanted or job.sweeps or bool(job.rows)
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
