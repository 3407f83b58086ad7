"""The resolver: finds out who accounts are, and whether their handles are their own.

It lives from the table of identities: what is due is read in the order of its rank, a few at a
time, asked for in the I/O thread, and the verdicts are written in batches. Nothing else holds any
state, so it can die at any moment; a row that was not written is due again. What the directory
does not answer is not written at all: the resolver waits for it, and the rows with it.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
import structlog

from actors.atproto import tid
from actors.identity.verdict import NOTHING, Intervals, Outcome, Verdict
from actors.lasting_session import LastingSession
from actors.outbound import Outbound, counting
from actors.resolving import KINDS, Answer, Halt, Question, Resolving
from actors.store import identities
from actors.store.identities import Due, Found, Written
from actors.store.outage import Outage
from actors.store.session import REFUSALS, Connection, SessionSettings, TooSlow, one_line
from actors.turns import Turns, share
from config.settings import NetworkSettings, ResolverSettings
from engine.actor import Actor
from engine.context import Context
from engine.iothread import IoThread
from engine.timer import Timer

log = structlog.get_logger("resolver")

# With so few places nobody is read who has to wait for one, so that each place has its rank.
FEW: Final = 8
# How often the table is looked at when nothing was due the last time.
POLL_SECONDS: Final = 1.0
# Verdicts written in one transaction, and how long one waits for others.
BATCH: Final = 200
LINGER_SECONDS: Final = 0.2
# Users without a row, of before there were such rows: a slice at a time, and the whole table daily.
FILL_ROWS: Final = 2_000
FILL_SECONDS: Final = 0.2
FILL_AGAIN_SECONDS: Final = 86_400.0
# Who wrote within this time is one of those that are looked at first.
ACTIVE_SECONDS: Final = 7 * 86_400.0
COUNT_SECONDS: Final = 15.0
# What is due is counted up to here, and shown as this much where there is more.
MOST_COUNTED: Final = 100_000
TOLD_SECONDS: Final = 60.0
PROBLEM_LETTERS: Final = 300


@dataclass(frozen=True, slots=True)
class ResolverOptions:
    """What the topology gives to the resolver; see [resolver] and [network] in default.toml."""

    session: SessionSettings
    network: NetworkSettings
    resolver: ResolverSettings


class Resolver(Actor):
    """The actor."""

    settings: ResolverOptions

    def __init__(self, context: Context, settings: ResolverOptions) -> None:
        super().__init__(context, settings)
        limits, network = settings.resolver, settings.network
        self._session = LastingSession(context, settings.session, identities.prepare)
        self._io: IoThread[Answer] = IoThread(context, items=BATCH, size=1 << 20)
        self._chance = random.Random()  # noqa: S311 - jitter
        self._intervals = Intervals(
            limits.valid_seconds,
            limits.invalid_seconds,
            limits.error_seconds,
            limits.error_max_seconds,
        )
        count = counting(context.metrics, KINDS)
        # The directory has a rate of its own; its accounts are all behind one host.
        at_directory = msgspec.structs.replace(
            network,
            requests_per_second=limits.requests_per_second,
            connections_per_host=limits.connections,
        )
        self._directory = Outbound(at_directory, count=count, clock=context.clock)
        self._network = Outbound(network, count=count, clock=context.clock)
        self._resolving = Resolving(
            self._directory,
            self._network,
            plc_url=network.plc_url,
            now=context.clock.monotonic,
            development=network.allow_private_hosts,
            grace_seconds=limits.grace_seconds,
            memory=limits.known_handles,
            memory_seconds=limits.error_seconds,
        )
        self._turns = Turns(limits.concurrency)
        # All that was read and not written yet, and of it what has not begun.
        self._hand: dict[str, Due] = {}
        self._waiting: dict[bool, deque[Due]] = {True: deque(), False: deque()}
        self._answers: list[Answer] = []
        self._flush_timer: Timer | None = None
        # Where the walk through `users` is; None when it is over.
        self._filled: str | None = ""
        self._told_at = 0.0
        self._since_told: Counter[str] = Counter()
        self._outages = {
            name: Outage(
                f"{what} does not answer: handles stay as they are",
                f"{what} answers again",
                context.clock.monotonic,
            )
            for name, what in (("directory", "the directory"), ("names", "the name system"))
        }
        metrics = context.metrics
        self._outcomes = {
            outcome: metrics.counter(
                "identity_resolutions_total", "Identities looked at", outcome=str(outcome)
            )
            for outcome in Outcome
        }
        self._put_back = metrics.counter(
            "identities_put_back_total", "Identities left due, as the directory rests"
        )
        self._changed = metrics.counter("handles_changed_total", "Accounts shown by another handle")
        self._lost = metrics.counter("handles_lost_total", "Handles that went to another account")
        self._filled_rows = metrics.counter("identities_filled_total", "Identities of old users")
        self._due = {
            rank: metrics.gauge(
                "identities_due", f"Identities that are due (to {MOST_COUNTED})", rank=str(rank)
            )
            for rank in identities.RANKS
        }
        self._oldest = metrics.gauge("identities_oldest_due_seconds", "How long the first is due")
        in_flight = metrics.gauge("identities_in_flight", "Identities being looked at")
        in_hand = metrics.gauge("identities_in_hand", "Identities read and not yet written")
        resting = {
            name: metrics.gauge(
                "resolver_resting", "1 while it is left alone as it does not answer", of=name
            )
            for name in self._outages
        }

        def gauges() -> None:
            in_flight.set(self._turns.running)
            in_hand.set(len(self._hand))
            resting["directory"].set(float(self._turns.directory.goes_on))
            resting["names"].set(float(self._turns.names.goes_on))

        metrics.before_snapshot(gauges)

    def on_start(self) -> None:
        """Connect to PostgreSQL, and begin with what is due."""
        self._session.open()
        self._io.start()
        self.context.watch(self._io.descriptor, self._collect)
        self._io.submit(self._hold_clients)
        self._told_at = self.context.clock.monotonic()
        self._count()
        self._fill()
        self._poll()

    def on_drain(self) -> None:
        """Write what is known; the rest is due again."""
        self._flush()
        self.context.stop()

    def on_stop(self) -> None:
        """Close the connection to PostgreSQL."""
        self._session.close()

    async def _hold_clients(self, _deliver: Callable[[Answer], Awaitable[None]]) -> None:
        async with self._directory, self._network:
            await asyncio.Event().wait()

    # --- what is due

    def _poll(self) -> None:
        self._take()
        self.context.after(POLL_SECONDS, self._poll)

    def _take(self) -> None:
        """Begin with as many as may be, and read more where there is room."""
        for plc in (True, False):
            room = self._turns.room(plc, self.context.clock.monotonic())
            waiting = self._waiting[plc]
            if room and len(waiting) < room:
                self._read(plc, room)
            while waiting and self._turns.room(plc, self.context.clock.monotonic()):
                self._begin(plc, waiting.popleft())

    def _read(self, plc: bool, room: int) -> None:
        """Read what is due; where there is much room some more, so that it is read less often."""
        limit = self.settings.resolver.concurrency
        most = room if room <= FEW else min(limit, 2 * room)
        wanted = most - len(self._waiting[plc])
        if wanted < 1 or len(self._hand) > 4 * limit + BATCH:
            return
        but = list(self._hand)

        def read(connection: Connection) -> list[list[Due]]:
            return [identities.due(connection, plc, rank, wanted, but) for rank in identities.RANKS]

        for due in share(self._session.attempt(read), wanted):
            self._hand[due.did] = due
            self._waiting[plc].append(due)

    def _begin(self, plc: bool, due: Due) -> None:
        self._turns.begins(plc)
        fresh = due.rank == identities.CHANGED
        question = Question(due.did, due.held, due.silence, fresh, due.known)
        self._io.submit(partial(_ask, self._resolving, question))

    # --- what came of it

    def _collect(self) -> None:
        now = self.context.clock.monotonic()
        for answer in self._io.take(BATCH):
            plc = answer.did.startswith("did:plc:")
            self._turns.ends(plc)
            self._learn(answer, now)
            if isinstance(answer.result, Halt):
                self._put_back.add()
                self._let_go((answer.did,))
                # Those behind it would be told the same.
                self._let_go([due.did for due in self._waiting[plc]])
                self._put_back.add(len(self._waiting[plc]))
                self._waiting[plc].clear()
            else:
                self._answers.append(answer)
        if len(self._answers) >= BATCH:
            self._flush()
        elif self._answers and self._flush_timer is None:
            self._flush_timer = self.context.after(LINGER_SECONDS, self._flush)
        self._take()

    def _learn(self, answer: Answer, now: float) -> None:
        """What an answer says of the directory and of the name system."""
        result, turns = answer.result, self._turns
        halted = isinstance(result, Halt)
        why = result.detail if isinstance(result, Halt) else result.problem or ""
        seconds = result.seconds if isinstance(result, Halt) else 0.0
        for name, rest, answered in (
            ("directory", turns.directory, answer.directory),
            ("names", turns.names, answer.names),
        ):
            if answered is None:
                continue
            if answered:
                rest.worked()
            else:
                rest.failed(now, seconds, surely=halted)
            if rest.goes_on:
                self._outages[name].failed(why)
            else:
                self._outages[name].succeeded()

    def _flush(self) -> None:
        """Write the verdicts that are there."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        answers, self._answers = self._answers, []
        found = []
        for answer in answers:
            assert isinstance(answer.result, Verdict)
            found.append(self._found(self._hand[answer.did], answer.result))
        if found:
            self.context.crash_point("resolver.before_write")
            self._write(found)
            self.context.crash_point("resolver.written")
        for answer in answers:
            assert isinstance(answer.result, Verdict)
            self._outcomes[answer.result.outcome].add()
            self._since_told[str(answer.result.outcome)] += 1
        self._let_go(answer.did for answer in answers)
        self._take()

    def _found(self, due: Due, verdict: Verdict) -> Found:
        seconds = self._intervals.after(verdict, due.failures, self._chance)
        problem = verdict.problem
        return Found(
            due,
            seconds,
            None if problem is None else problem.replace("\0", "")[:PROBLEM_LETTERS],
            verdict.settled,
            verdict.handle,
            verdict.document is not None,
            *(verdict.document or NOTHING),
        )._replace(good=verdict.outcome is Outcome.VALID)

    def _write(self, found: list[Found]) -> None:
        """Write a batch, or its halves where PostgreSQL has something against one of them."""

        def write(connection: Connection) -> Written:
            return identities.write(connection, self._session.fence, found)

        try:
            written = self._session.attempt(write)
        except (TooSlow, *REFUSALS) as error:
            middle = len(found) // 2
            if middle:
                self._write(found[:middle])
                self._write(found[middle:])
                return
            due = found[0].due
            log.warning("an identity cannot be written", did=due.did[:100], reason=one_line(error))
            later = Found(due, self._intervals.valid, "PostgreSQL refuses it", settled=False)
            found = [later]
            written = self._session.attempt(write)
        self._changed.add(written.changed)
        self._lost.add(len(written.lost))
        for did in written.lost:
            log.info("a handle went to another account: this one is looked at again", did=did[:100])

    def _let_go(self, dids: Iterable[str]) -> None:
        for did in dids:
            del self._hand[did]

    # --- beside it

    def _fill(self) -> None:
        """Make the identities of one slice of users that have none."""
        if self._filled is None:
            self._filled = ""
        rev = tid.from_microseconds(round((self.context.clock.now() - ACTIVE_SECONDS) * 1e6), 0)
        after, fence = self._filled, self._session.fence

        def fill(connection: Connection) -> tuple[str | None, int]:
            return identities.fill(connection, fence, after, FILL_ROWS, rev)

        self._filled, made = self._session.attempt(fill)
        self._filled_rows.add(made)
        over = self._filled is None
        self.context.after(FILL_AGAIN_SECONDS if over else FILL_SECONDS, self._fill)

    def _count(self) -> None:
        """Count what is due, and tell of it now and then."""

        def count(connection: Connection) -> list[tuple[int, float]]:
            return [
                identities.backlog(connection, plc, rank, MOST_COUNTED)
                for rank in identities.RANKS
                for plc in (True, False)
            ]

        counted = self._session.attempt(count)
        for index, rank in enumerate(identities.RANKS):
            number = counted[2 * index][0] + counted[2 * index + 1][0]
            self._due[rank].set(min(number, MOST_COUNTED))
        self._oldest.set(max(seconds for _, seconds in counted))
        self._tell(sum(number for number, _ in counted))
        self.context.after(COUNT_SECONDS, self._count)

    def _tell(self, due: int) -> None:
        now = self.context.clock.monotonic()
        if now - self._told_at < TOLD_SECONDS:
            return
        if self._since_told:
            log.info(
                "identities looked at",
                **dict(sorted(self._since_told.items())),
                seconds=round(now - self._told_at),
                due=f"{due} or more" if due >= MOST_COUNTED else due,
            )
        self._since_told.clear()
        self._told_at = now


async def _ask(
    resolving: Resolving, question: Question, deliver: Callable[[Answer], Awaitable[None]]
) -> None:
    await deliver(await resolving.resolve(question))
