"""The shard: decodes and applies the frames of its DIDs, in batches, one transaction a batch.

It acks what it has committed and nothing before. What a batch means for other actors is written in
the batch's own transaction and then offered along; an offer that is not taken is made up for later.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from actors.decoder import Batch
from actors.messages import CreateUsers, EnsureUsers, Frames, OutboxWork, SweepOutbox
from actors.recent import Recent
from actors.store.batch import Dropped, Outcome
from actors.store.bisect import apply_bisecting
from actors.store.fence import Fence, RunReplaced
from actors.store.outage import Outage
from actors.store.session import (
    Connection,
    DatabaseAway,
    DatabaseUnusable,
    SessionSettings,
    wait_for_session,
)
from actors.store.writer import Writer
from engine.actor import Actor, Delivery
from engine.address import Address
from engine.context import Context
from engine.errors import ActorAway, AskFailed, AskTimeout
from engine.message import Codec, Message
from engine.metrics import COUNTS, Counter
from engine.timer import Timer

log = structlog.get_logger()

GATE: Final = "user_gate"
# A DID has at most 2,048 bytes, and a message must fit in its window.
DIDS_IN_A_MESSAGE: Final = 1_000
# Between two attempts to tell the gate that work is left for it.
SWEEP_SECONDS: Final = 1.0
# After this many drops of one reason the log says no more of them; the counters go on.
LOGGED_DROPS: Final = 5


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What a shard needs to know; see config/default.toml for the meaning of each."""

    session: SessionSettings
    batch_commits: int
    batch_bytes: int
    batch_linger_ms: float
    user_cache: int
    gate_timeout_ms: float
    search_vector: bool


class Shard(Actor):
    """Applies the commits of its DIDs in order."""

    acks_itself = True

    def __init__(self, context: Context, settings: ShardSettings) -> None:
        self._settings = settings
        self._codec = Codec((CreateUsers,))
        self._held: list[Frames] = []
        self._held_frames = 0
        self._held_bytes = 0
        self._last: Delivery | None = None
        self._timer: Timer | None = None
        self._known = Recent(settings.user_cache)
        self._sent_work = 0
        self._owes_sweep = True
        self._sweep_timer: Timer | None = None
        self._logged: dict[str, int] = {}
        self._outage = Outage(
            "PostgreSQL is away: this shard waits for it",
            "PostgreSQL is back",
            context.clock.monotonic,
        )
        metrics = context.metrics
        self._commits = metrics.counter("commits_total", "Commits applied")
        self._replayed = metrics.counter("replayed_total", "Commits that were known already")
        self._gaps = metrics.counter("discontinuous_total", "Commits applied out of step")
        self._retries = metrics.counter("batch_retries_total", "Batches tried again (locks)")
        self._outages = metrics.counter("database_outages_total", "Times PostgreSQL was away")
        self._gate_misses = metrics.counter(
            "user_gate_misses_total", "Batches that did not wait for the user gate"
        )
        self._seconds = metrics.histogram("batch_seconds", "Decoding and writing a batch")
        self._sizes = metrics.histogram("batch_frames", "Frames in a batch", buckets=COUNTS)
        super().__init__(context, settings)

    def on_start(self) -> None:
        """Connect, and take over from an older generation."""
        self._fence = Fence(self.context.name, self.context.epoch, self.context.generation)
        self._connect()

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        """Hold frames until a batch is full, or old enough."""
        assert isinstance(message, Frames), message
        self._held.append(message)
        self._held_frames += len(message.frames)
        self._held_bytes += delivery.size
        self._last = delivery
        if (
            self._held_frames >= self._settings.batch_commits
            or self._held_bytes >= self._settings.batch_bytes
            or delivery.alone
        ):
            self._flush()
        elif self._timer is None:
            self._timer = self.context.after(self._settings.batch_linger_ms / 1000, self._flush)
        return None

    def on_drain(self) -> None:
        """Apply what is held, then stop."""
        self._flush()
        super().on_drain()

    def on_stop(self) -> None:
        """Close the connection."""
        self._connection.close()

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:  # noqa: ARG002 - the engine's signature
        """Tell a gate that came up that work may be left for it."""
        if peer == GATE and up:
            self._sent_work = 0
            self._sweep()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._held or self._last is None:
            return
        began = self.context.clock.monotonic()
        frames_held = self._held_frames
        self._sizes.observe(frames_held)
        batch = Batch()
        for frames in self._held:
            for frame in frames.frames:
                batch.add(frame)
                # What is small on the way may be much to write: a block that many records share.
                if batch.size >= self._settings.batch_bytes:
                    self._write(batch)
                    batch = Batch()
                self.context.progress()
        if batch.events:
            self._write(batch)
        self.context.crash_point("shard.before_ack")
        self._last.ack()
        self.context.crash_point("shard.after_ack")
        self._held, self._held_frames, self._held_bytes, self._last = [], 0, 0, None
        seconds = self.context.clock.monotonic() - began
        self._seconds.observe(seconds)
        log.debug("batch acked", frames=frames_held, ms=round(1000 * seconds, 1))

    def _write(self, batch: Batch) -> None:
        """Write a batch, however long PostgreSQL is away."""
        self.context.crash_point("shard.decoded")
        began = self.context.clock.monotonic()
        unknown = self._unknown(batch)
        work = []
        for start in range(0, len(unknown), DIDS_IN_A_MESSAGE):
            part = unknown[start : start + DIDS_IN_A_MESSAGE]
            work.append((GATE, self._codec.encode(CreateUsers(part))))
        outcome = self._apply(batch, work)
        for drop in (*batch.drops, *outcome.drops):
            self._count_drop(drop)
        self._count(outcome)
        self._known.update(unknown)
        self._send_work(outcome, work)
        write_ms = round(1000 * (self.context.clock.monotonic() - began), 1)
        log.debug("written", commits=outcome.commits, replayed=outcome.replayed, write_ms=write_ms)

    def _apply(self, batch: Batch, work: list[tuple[str, bytes]]) -> Outcome:
        """Apply a batch, trying again while PostgreSQL is away; ends the run when it stays away."""
        tallies = batch.tallies()
        outage = self._outage
        while True:
            try:
                outcome = apply_bisecting(
                    self._writer, batch.changes, work, tallies, self.context.wait
                )
            except DatabaseAway as away:
                if not outage.goes_on:
                    self._outages.add()
                pause = outage.failed(away)
                if outage.seconds > self._settings.session.outage_seconds:
                    # It takes connections and still writes nothing: a full disk, for example.
                    self.context.give_up(f"PostgreSQL has not written anything since: {away}", 69)
                self._connection.close()
                self.context.wait(pause)
                self._connect()
                # The outbox rows of a commit whose answer was lost have not been sent along.
                self._owes_sweep = True
            except RunReplaced as replaced:
                self.context.give_up(str(replaced), 75)
            except DatabaseUnusable as unusable:
                # No record is to blame: ending the run is better than burying frames for it.
                self.context.give_up(f"PostgreSQL refuses to be written to: {unusable}", 78)
            else:
                outage.succeeded()
                return outcome

    def _unknown(self, batch: Batch) -> list[str]:
        """DIDs that may lack a `users` row; asks the gate for those of authors first.

        What is returned is left to the outbox.
        """
        known = self._known
        authors = known.missing(batch.authors)
        subjects = known.missing(batch.subjects)
        if authors and len(authors) <= DIDS_IN_A_MESSAGE:
            timeout = self._settings.gate_timeout_ms / 1000
            try:
                self.context.ask(GATE, EnsureUsers(sorted(authors)), timeout)
            except (ActorAway, AskFailed, AskTimeout):
                self._gate_misses.add()
                subjects |= authors
            else:
                known.update(authors)
                subjects -= authors
        else:
            subjects |= authors
        return sorted(subjects)

    def _send_work(self, outcome: Outcome, work: list[tuple[str, bytes]]) -> None:
        for (receiver, body), row in zip(work, outcome.outbox, strict=True):
            # The number goes up whether or not the offer is taken: a gap tells the receiver.
            self._sent_work += 1
            if not self.context.offer(receiver, OutboxWork(row, self._sent_work, body)):
                self._owes_sweep = True
        if self._owes_sweep:
            self._sweep()

    def _sweep(self) -> None:
        """Have the gate look into the outbox; try again in a moment where it cannot be told."""
        self._owes_sweep = not self.context.offer(GATE, SweepOutbox())
        if self._owes_sweep and self._sweep_timer is None:
            self._sweep_timer = self.context.after(SWEEP_SECONDS, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweep_timer = None
        if self._owes_sweep:
            self._sweep()

    def _connect(self) -> None:
        """Open the session and the writer; ends the run where PostgreSQL stays away."""
        context = self.context
        try:
            self._connection = wait_for_session(
                self._settings.session,
                context.name,
                context.wait,
                context.clock.monotonic,
                self._take_over,
            )
        except DatabaseAway as away:
            context.give_up(f"PostgreSQL stayed away: {away}", 69)
        except RunReplaced as replaced:
            context.give_up(str(replaced), 75)

    def _take_over(self, connection: Connection) -> None:
        """Take over from an older generation, on a new connection."""
        self._fence.claim(connection)
        self._writer = Writer(
            connection,
            self._fence,
            search=self._settings.search_vector,
            crash_point=lambda name: self.context.crash_point(f"shard.{name}"),
        )

    def _count(self, outcome: Outcome) -> None:
        self._commits.add(outcome.commits)
        self._replayed.add(outcome.replayed)
        self._gaps.add(outcome.discontinuous)
        self._retries.add(outcome.retries)
        for (table, action), amount in outcome.operations.items():
            self._operation(table, action).add(amount)

    def _operation(self, table: str, action: str) -> Counter:
        return self.context.metrics.counter(
            "operations_total", "Operations applied", table=table, action=action
        )

    def _count_drop(self, drop: Dropped) -> None:
        reason = drop.reason
        self.context.metrics.counter("drops_total", "Bad input stepped over", reason=reason).add()
        logged = self._logged[reason] = self._logged.get(reason, 0) + 1
        if logged <= LOGGED_DROPS:
            rest = " (further ones are only counted)" if logged == LOGGED_DROPS else ""
            log.info(f"dropped{rest}", reason=reason, subject=drop.subject, detail=drop.detail)
