"""The shard: decodes and applies the frames of its DIDs, in batches, one transaction a batch.

It acks what it has committed and nothing before. What a batch means for other actors is written in
the batch's own transaction and then offered along; an offer that is not taken is made up for later.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog

from actors.atproto.lexicon import LexiconError
from actors.backlog import Backlog, Once
from actors.decoder import Batch, Validate
from actors.fetched import decoded
from actors.lexicons import Validation
from actors.mail import Mail
from actors.messages import (
    CreateUsers,
    EnsureUsers,
    FetchedRecord,
    Frames,
    RepoSlice,
    ResyncBegins,
    ResyncEnds,
    Settle,
    WholeRepos,
)
from actors.parked import ParkedEvents
from actors.present import Present
from actors.recent import Recent
from actors.records.fields import owner
from actors.shard_metrics import ShardMetrics
from actors.store import resync
from actors.store.batch import Outcome
from actors.store.bisect import apply_bisecting
from actors.store.fence import Fence, RunReplaced
from actors.store.identities import signing_keys
from actors.store.outage import Outage
from actors.store.parking import KEYS, RESYNC
from actors.store.reading import revs_of
from actors.store.session import (
    Connection,
    DatabaseAway,
    DatabaseUnusable,
    SessionSettings,
    TooSlow,
    wait_for_session,
)
from actors.store.writer import Writer
from actors.verification import Sorted, Verification
from engine.actor import Actor, Delivery
from engine.address import Address, member
from engine.context import Context
from engine.errors import ActorAway, AskFailed, AskTimeout
from engine.message import Codec, Message
from engine.sharding import shard_of
from engine.timer import Timer

log = structlog.get_logger()

T = TypeVar("T")
GATE: Final = "user_gate"
# A DID has at most 2,048 bytes, and a message must fit in its window.
DIDS_IN_A_MESSAGE: Final = 1_000
# A gate that did not answer in time is not waited for again for this long: a batch that comes
# meanwhile leaves its users to the outbox at once.
GATE_REST_SECONDS: Final = 5.0


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
    shards: int
    receivers: tuple[str, ...]
    validation: Validation = field(default_factory=Validation)
    kept_drops: int = 0
    verify: str = "structure"
    parked_bytes: int = 64 * 1024 * 1024
    fetches: bool = True
    personal: bool = False


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
        self._gate_rests_until = 0.0
        self._present = Present(context.clock.now)
        self._mail = Mail(context, settings.receivers)
        verifies = settings.verify != "structure"
        self._verification = Verification(context.clock.monotonic) if verifies else None
        parked = ParkedEvents(
            self._new_batch,
            verifies=verifies,
            crash_point=partial(context.crash_point, "shard.draining"),
        )
        self._backlog = Backlog(context, self._with_writer, self._take, self._owns, parked.decode)
        self._validate: Validate | None = None
        self._outage = Outage(
            "PostgreSQL is away: this shard waits for it",
            "PostgreSQL is back",
            context.clock.monotonic,
        )
        self._counts = ShardMetrics(context.metrics)
        super().__init__(context, settings)

    def on_start(self) -> None:
        """Load the lexicons, connect, and take over from an older generation."""
        try:
            lexicons = self._settings.validation.load()
        except LexiconError as error:
            self.context.give_up(str(error), 78)
        self._validate = None if lexicons is None else lexicons.validate
        self._fence = Fence(self.context.name, self.context.epoch, self.context.generation)
        self._connect()
        self._backlog.look()
        self.context.after(0, self._begin_run)

    def _begin_run(self) -> None:
        """Let go what accounts came to wait for in an earlier run, and this one does not do."""
        wait = self.context.wait
        nobody = [] if self._settings.fetches else [RESYNC]
        asked = [] if self._verification is None else KEYS
        nobody += KEYS if self._verification is None else ()
        self._persist(lambda: resync.begin_run(self._writer, nobody, asked, wait))

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        """Hold frames until a batch is full, or old enough; settle at once."""
        if not isinstance(message, Frames):
            self._do_at_once(message)
            delivery.ack()
            return None
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
        """Tell a receiver that came up that work may be left for it."""
        if up:
            self._mail.is_up(peer)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._held or self._last is None:
            return
        began = self.context.clock.monotonic()
        frames_held = self._held_frames
        self._counts.sizes.observe(frames_held)
        batch = self._new_batch()
        for frames in self._held:
            for frame in frames.frames:
                batch.add(frame, frames.host)
                # What is small on the way may be much to write: a block that many records share.
                if batch.size >= self._settings.batch_bytes:
                    self._write(batch)
                    batch = self._new_batch()
                self.context.progress()
        if batch.events:
            self._write(batch)
        self.context.crash_point("shard.before_ack")
        self._last.ack()
        self.context.crash_point("shard.after_ack")
        self._held, self._held_frames, self._held_bytes, self._last = [], 0, 0, None
        seconds = self.context.clock.monotonic() - began
        self._counts.seconds.observe(seconds)
        log.debug("batch acked", frames=frames_held, ms=round(1000 * seconds, 1))

    def _new_batch(self) -> Batch:
        report_only = self._settings.validation.mode == "report"
        verify = self._settings.verify
        return Batch(
            validate=self._validate,
            report_only=report_only,
            signatures=verify != "structure",
            trees=verify == "full",
            present=self._present,
        )

    def _write(self, batch: Batch) -> None:
        """Write a batch, however long PostgreSQL is away."""
        self.context.crash_point("shard.decoded")
        began = self.context.clock.monotonic()
        unknown = self._unknown(batch)
        work = self._creations(unknown)
        found = self._verified(batch)
        tallies, wait = batch.tallies(), self.context.wait
        outcome = self._persist(
            lambda: apply_bisecting(self._writer, found.ready, work, tallies, wait, batch.drops)
        )
        if found.waiting:
            self.context.crash_point("shard.parking")
            waiting, reasons = found.waiting, found.reasons
            outcome.add(
                self._persist(lambda: resync.await_keys(self._writer, reasons, waiting, wait))
            )
        for drop in batch.drops:
            self._counts.drop(drop)
        for report in batch.reported:
            self._counts.report(report)
        self._take(outcome)
        self._known.update(unknown)
        write_ms = round(1000 * (self.context.clock.monotonic() - began), 1)
        log.debug("written", commits=outcome.commits, replayed=outcome.replayed, write_ms=write_ms)

    def _verified(self, batch: Batch) -> Sorted:
        """Tell what can be verified by the keys that are known from what must wait."""
        verification, changes = self._verification, batch.changes
        if verification is None:
            return Sorted(changes, [], {})
        return self._persist(
            lambda: verification.sort(
                changes, partial(signing_keys, self._connection), partial(revs_of, self._connection)
            )
        )

    def _do_at_once(self, message: Message) -> None:
        """Do what the registry or the fetcher asks for, each in a transaction of its own."""
        wait = self.context.wait
        match message:
            case Settle(claims, judge):
                self._take(self._persist(lambda: self._writer.settle(claims, judge, wait)))
            case FetchedRecord() | RepoSlice() | WholeRepos():
                self._apply_fetched(message)
            case ResyncBegins(did):
                self._take(self._persist(lambda: resync.begin(self._writer, did, wait)))
            case ResyncEnds(did, rev, data):
                self._take(self._persist(lambda: resync.end(self._writer, did, rev, data, wait)))
                self._backlog.look()
            case _:
                raise TypeError(f"the shard got a {type(message).__name__}")

    def _apply_fetched(self, message: FetchedRecord | RepoSlice | WholeRepos) -> None:
        batch = self._new_batch()
        apply = decoded(batch, message)
        # Whoever it speaks of is left to the gate's own time: nothing of this is urgent.
        unknown = sorted(self._known.missing(batch.authors | batch.subjects))
        work, wait = self._creations(unknown), self.context.wait
        self._take(self._persist(lambda: apply(self._writer, wait, work)))
        self._known.update(unknown)

    def _creations(self, dids: list[str]) -> list[tuple[str, bytes]]:
        """The gate's work for DIDs that may lack a `users` row."""
        parts = [
            dids[start : start + DIDS_IN_A_MESSAGE]
            for start in range(0, len(dids), DIDS_IN_A_MESSAGE)
        ]
        return [(GATE, self._codec.encode(CreateUsers(part))) for part in parts]

    def _take(self, outcome: Outcome) -> None:
        """Take in what a transaction did, and send along what it wrote for others."""
        self._counts.count(outcome)
        self._mail.send(outcome.sent)
        if outcome.purges:
            self._backlog.look()

    def _persist(self, write: Callable[[], T]) -> T:
        """Write, trying again while PostgreSQL is away; ends the run when it stays away."""
        outage = self._outage
        while True:
            try:
                written = write()
            except (DatabaseAway, TooSlow) as away:
                # What can be halved has been: what is still too slow meets a server that is ill.
                if not outage.goes_on:
                    self._counts.outages.add()
                pause = outage.failed(away)
                if outage.seconds > self._settings.session.outage_seconds:
                    # It takes connections and still writes nothing: a full disk, for example.
                    self.context.give_up(f"PostgreSQL has not written anything since: {away}", 69)
                self._connection.close()
                self.context.wait(pause)
                self._connect()
                # The outbox rows of a commit whose answer was lost have not been sent along.
                self._mail.owe_all()
            except RunReplaced as replaced:
                self.context.give_up(str(replaced), 75)
            except DatabaseUnusable as unusable:
                # No record is to blame: ending the run is better than burying frames for it.
                self.context.give_up(f"PostgreSQL refuses to be written to: {unusable}", 78)
            else:
                outage.succeeded()
                return written

    def _with_writer(self, once: Once) -> Outcome | None:
        return self._persist(lambda: once(self._writer))

    def _owns(self, subject: str) -> bool:
        did = subject if subject.startswith("did:") else owner(subject)
        return member("shard", shard_of(did, self._settings.shards)) == self.context.name

    def _unknown(self, batch: Batch) -> list[str]:
        """DIDs that may lack a `users` row; asks the gate for those of authors first.

        What is returned is left to the outbox.
        """
        known = self._known
        authors = known.missing(batch.authors)
        subjects = known.missing(batch.subjects)
        now = self.context.clock.monotonic
        if authors and now() < self._gate_rests_until:
            self._counts.gate_misses.add()
            subjects |= authors
        elif authors and len(authors) <= DIDS_IN_A_MESSAGE:
            timeout = self._settings.gate_timeout_ms / 1000
            try:
                self.context.ask(GATE, EnsureUsers(sorted(authors)), timeout)
            except (ActorAway, AskFailed, AskTimeout) as missed:
                if isinstance(missed, AskTimeout):
                    self._gate_rests_until = now() + GATE_REST_SECONDS
                self._counts.gate_misses.add()
                subjects |= authors
            else:
                known.update(authors)
                subjects -= authors
        else:
            subjects |= authors
        return sorted(subjects)

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
            receivers=self._settings.receivers,
            kept_drops=self._settings.kept_drops,
            parked_bytes=self._settings.parked_bytes,
            personal=self._settings.personal,
            crash_point=lambda name: self.context.crash_point(f"shard.{name}"),
        )
