"""The label client: reads labelers, checks their labels, and keeps the table `labels`.

Each labeler has a reader in the I/O thread, which finds it, connects, and checks signatures; all of
them deliver into one bounded queue. The actor writes what they deliver, with the cursors of the
labelers in the same transaction. Labels expire by a sweep.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from actors import label_forwarder, label_stream, labeler_identity
from actors.atproto.label import Refusal
from actors.id_watch import IdWatch
from actors.label_forwarder import Answered, LabelForwarder
from actors.label_recorder import LabelRecorder
from actors.labeler_identity import DocumentLookup, known_of
from actors.labeler_reader import (
    Began,
    Connected,
    Failed,
    LabelerReader,
    Outdated,
    ReaderItem,
    ReaderSettings,
    Received,
)
from actors.lasting_session import LastingSession
from actors.outbound import Outbound, counting
from actors.store import labelers as store
from actors.store.labelers import Identified, LabelerState
from actors.store.labels import LabelBatch, Written
from actors.store.session import Connection, SessionSettings
from config.settings import NetworkSettings
from engine.actor import Actor
from engine.context import Context
from engine.iothread import IoTask, IoThread

log = structlog.get_logger("label_client")

# The queue between the readers and the writer. Each reader has a bound of its own besides.
QUEUE_ITEMS: Final = 2_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
# Labels that are written in one transaction; a frame is never parted.
BATCH_LABELS: Final = 2_000
TAKEN_ITEMS: Final = 256
EXPIRED_AT_ONCE: Final = 500
KINDS: Final = (labeler_identity.KIND, label_stream.KIND, label_forwarder.KIND)

Item = ReaderItem | Answered


@dataclass(frozen=True, slots=True)
class LabelClientSettings:
    """What the label client needs to know; see [labels] and [network] in config/default.toml."""

    session: SessionSettings
    network: NetworkSettings
    labelers: tuple[str, ...]
    discover: bool
    max_labelers: int
    forward_url: str
    reader: ReaderSettings
    look_seconds: float = 60.0
    expiry_seconds: float = 5.0
    most_behind: int = label_forwarder.MAX_BEHIND


@dataclass(slots=True)
class _Labeler:
    """A labeler that is read. `state` is what the table says of it, as far as we wrote it, `known`
    what the resolver knew of it when that was looked at last.
    """

    did: str
    reader: LabelerReader
    task: IoTask
    state: LabelerState
    known: Identified | None
    problem: str | None = None
    told: set[Refusal] = field(default_factory=set)


class LabelClient(Actor):
    """The actor."""

    settings: LabelClientSettings

    def __init__(self, context: Context, settings: LabelClientSettings) -> None:
        super().__init__(context, settings)
        self._session = LastingSession(context, settings.session, self._prepare)
        self._recorder = LabelRecorder(context, self._session, self._moved)
        self._io: IoThread[Item] = IoThread(
            context, items=QUEUE_ITEMS, size=QUEUE_BYTES, size_of=_size
        )
        self._chance = random.Random()  # noqa: S311 - jitter
        network = settings.network
        self._outbound = Outbound(
            network,
            trusted=(settings.forward_url,) if settings.forward_url else (),
            count=counting(context.metrics, KINDS),
            clock=context.clock,
        )
        self._lookup = DocumentLookup(
            self._outbound, network.plc_url, development=network.allow_private_hosts
        )
        self._labelers: dict[str, _Labeler] = {}
        self._sessions = 0
        self._forwarder: LabelForwarder | None = None
        metrics = context.metrics
        self._expired = metrics.counter("labels_expired_total", "Labels taken back as they expired")
        self._failures = metrics.counter(
            "labeler_failures_total", "Connections to labelers that failed or ended"
        )
        self._outdated = metrics.counter(
            "labeler_outdated_cursors_total", "Times a labeler no longer kept what was not read yet"
        )
        self._count = metrics.gauge("labelers", "Labelers that are read")
        self._seconds = metrics.histogram("label_batch_seconds", "Writing a batch of labels")
        waited = metrics.counter(
            "label_backpressure_seconds_total", "Time for which readers waited for the writer"
        )
        metrics.before_snapshot(lambda: setattr(waited, "value", self._io.waited))

    def on_start(self) -> None:
        """Connect to PostgreSQL, and begin to read."""
        self._session.open()
        self._io.start()
        self.context.watch(self._io.descriptor, self._take)
        self._io.submit(self._hold_outbound)
        if self.settings.forward_url:
            self._forwarder = LabelForwarder(
                self.context,
                self._session,
                self.settings.forward_url,
                self._outbound,
                self._io.submit,
                self._chance,
                self.settings.most_behind,
            )
            self._forwarder.start()
        self._look()
        self._sweep()
        IdWatch(self.context, self._session.attempt, "label_events").look()

    def on_drain(self) -> None:
        """Stop; what was not written is read again at the next start."""
        self.context.stop()

    def on_stop(self) -> None:
        """Close the connection to PostgreSQL."""
        self._session.close()

    def _prepare(self, connection: Connection) -> None:
        self._recorder.prepare(connection)

    async def _hold_outbound(self, _deliver: Callable[[Item], Awaitable[None]]) -> None:
        async with self._outbound:
            await asyncio.Event().wait()

    # --- who is read

    def _look(self) -> None:
        """See who is to be read, and whether what was read is still there."""
        wanted = self._wanted()
        known = self._session.attempt(partial(store.identities, dids=list(wanted)))
        for did in self._labelers.keys() - wanted.keys():
            self._end(did)
        for did, state in wanted.items():
            running, found = self._labelers.get(did), known.get(did)
            if running is None:
                self._begin(did, state, found)
            elif running.state != state:
                # Something of it was removed, and its cursor set back.
                self._end(did)
                self._begin(did, state, found)
            elif _changed(running.known, found):
                self._end(did)
                self._begin(did, self._rewound(running), found)
            else:
                running.known = found
        self._count.set(len(self._labelers))
        self.context.after(self.settings.look_seconds, self._look)

    def _rewound(self, labeler: _Labeler) -> LabelerState:
        """Where to read on when its key is another one: before what did not hold by the old one."""
        state, doubt = labeler.state, labeler.reader.doubt
        if doubt is None or state.cursor is None:
            return state
        # What was delivered and is not written yet must come again as well.
        if doubt[0] is None or doubt[0] < state.cursor:
            state = state._replace(cursor=doubt[0])
            self._write_state(labeler.did, state)
        return state

    def _wanted(self) -> dict[str, LabelerState]:
        most = self.settings.max_labelers
        dids = dict.fromkeys(self.settings.labelers)
        if self.settings.discover:
            declared = self._session.attempt(partial(store.declared, limit=most))
            dids |= dict.fromkeys(declared)
        chosen = list(dids)[:most]
        withheld = self._session.attempt(partial(store.withheld, dids=chosen))
        known = self._session.attempt(partial(store.states, dids=chosen))
        for did in withheld:
            self._note(did, "it is taken down, not active, or has opted out")
        return {did: known.get(did, LabelerState()) for did in chosen if did not in withheld}

    def _begin(self, did: str, state: LabelerState, found: Identified | None) -> None:
        self._sessions += 1
        development = self.settings.network.allow_private_hosts
        reader = LabelerReader(
            did,
            self._sessions,
            state,
            self.settings.reader,
            known=None if found is None else known_of(found, development=development),
            outbound=self._outbound,
            lookup=self._lookup,
            now=self.context.clock.now,
            chance=self._chance,
        )
        self._labelers[did] = _Labeler(did, reader, self._io.submit(reader.run), state, found)
        log.info("reading a labeler", labeler=did, endpoint=state.endpoint, cursor=state.cursor)

    def _end(self, did: str) -> None:
        """Read a labeler no more; what is left of it in the queue is thrown away."""
        self._labelers.pop(did).task.cancel()
        self._connected(did, False)

    # --- what readers deliver

    def _take(self) -> None:
        received: list[Received] = []
        labels = 0
        for item in self._io.take(TAKEN_ITEMS):
            if isinstance(item, Answered):
                assert self._forwarder is not None
                self._forwarder.answered(item)
                continue
            if not self._is_current(item):
                continue
            if isinstance(item, Received):
                received.append(item)
                labels += len(item.labels)
            if labels >= BATCH_LABELS or not isinstance(item, Received):
                self._write(received)
                received, labels = [], 0
            # Writing may have found that the labeler is to be read otherwise.
            if not isinstance(item, Received) and self._is_current(item):
                self._hear(item)
        self._write(received)

    def _is_current(self, item: ReaderItem) -> bool:
        labeler = self._labelers.get(item.did)
        return labeler is not None and labeler.reader.session == item.session

    def _hear(self, item: Began | Connected | Failed | Outdated) -> None:
        labeler = self._labelers[item.did]
        match item:
            case Began(did, _, endpoint, cursor):
                labeler.state = LabelerState(endpoint, cursor)
                self._write_state(did, labeler.state)
                log.info("reading a labeler anew", labeler=did, endpoint=endpoint, cursor=cursor)
            case Connected(did):
                self._connected(did, True)
                if labeler.problem is not None:
                    log.info("the labeler answers again", labeler=did)
                labeler.problem = None
                self._note(did, None)
            case Failed(did, _, problem, seconds):
                self._failures.add()
                self._connected(did, False)
                report = log.warning if labeler.problem != problem else log.debug
                report(
                    "cannot read a labeler, trying again",
                    labeler=did,
                    problem=problem,
                    seconds=round(seconds, 1),
                )
                if labeler.problem != problem:
                    self._note(did, problem)
                labeler.problem = problem
            case Outdated(did, _, cursor, message):
                self._outdated.add()
                log.warning(
                    "a labeler no longer keeps all that was not read yet: what it made or took back"
                    " meanwhile is not known",
                    labeler=did,
                    cursor=cursor,
                    message=message,
                )

    def _write_state(self, did: str, state: LabelerState) -> None:
        fence, (endpoint, cursor) = self._session.fence, state
        assert endpoint is not None, "a labeler is read somewhere"
        self._session.attempt(
            partial(store.begin, fence=fence, did=did, endpoint=endpoint, cursor=cursor)
        )

    def _note(self, did: str, problem: str | None) -> None:
        fence = self._session.fence
        self._session.attempt(partial(store.note, fence=fence, did=did, problem=problem))

    def _connected(self, did: str, connected: bool) -> None:
        gauge = self.context.metrics.gauge(
            "labeler_connected", "Whether a labeler is connected", labeler=did
        )
        gauge.set(int(connected))

    # --- writing

    def _write(self, received: Sequence[Received]) -> None:
        """Write what readers have delivered, and give them room for more."""
        if not received:
            return
        began = self.context.clock.monotonic()
        self._recorder.record(received)
        self._seconds.observe(self.context.clock.monotonic() - began)
        for item in received:
            self._refused(item)
        readers = [
            (labeler.reader, item)
            for item in received
            if (labeler := self._labelers.get(item.did)) is not None
            and labeler.reader.session == item.session
        ]
        self._io.submit(partial(_make_room, readers))
        self.context.progress()
        if self._forwarder is not None:
            self._forwarder.pump()

    def _moved(self, batch: LabelBatch, written: Written) -> None:
        """Note where the cursors are; read again, or no more, those that could not be moved."""
        for did, cursor in batch.cursors.items():
            labeler = self._labelers.get(did)
            if labeler is None:
                continue
            if did in written.withheld:
                log.info("a labeler is withheld: it is read no more", labeler=did)
                self._end(did)
            elif did in written.stuck:
                log.info("what was read of a labeler was removed: reading it again", labeler=did)
                self._end(did)
                states = self._session.attempt(partial(store.states, dids=[did]))
                self._begin(did, states.get(did, LabelerState()), labeler.known)
            else:
                labeler.state = LabelerState(cursor.endpoint, cursor.seq)

    def _refused(self, item: Received) -> None:
        """Count what a frame held that was refused; the first of each kind is told."""
        for reason, amount in item.refused.items():
            self._recorder.refused(reason, amount)
            labeler = self._labelers.get(item.did)
            if labeler is not None and reason not in labeler.told:
                labeler.told.add(reason)
                log.warning(
                    "a label is refused; the like is only counted",
                    labeler=item.did,
                    reason=str(reason),
                    detail=item.example,
                )

    def _sweep(self) -> None:
        """Take back what has expired."""
        now = int(self.context.clock.now() * 1_000_000)
        expired = self._session.attempt(
            lambda _connection: self._recorder.writer.expire(now, EXPIRED_AT_ONCE)
        )
        self._expired.add(expired)
        more = expired == EXPIRED_AT_ONCE
        self.context.after(0.0 if more else self.settings.expiry_seconds, self._sweep)


def _changed(before: Identified | None, now: Identified | None) -> bool:
    """Whether a labeler is known as another one than before; not when it comes to be known."""
    if before is None:
        return False
    return now is None or now[:2] != before[:2]


async def _make_room(
    written: Sequence[tuple[LabelerReader, Received]], _deliver: Callable[[Item], Awaitable[None]]
) -> None:
    """Runs in the I/O thread, where the readers are."""
    for reader, item in written:
        reader.written(item)


def _size(item: Item) -> int:
    return item.size if isinstance(item, Received) else 0
