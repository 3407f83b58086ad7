"""The ingest actor: from one upstream to the shards, and the checkpoint behind them.

Each frame is handed unparsed to the shard of its DID, many in one message. What a shard has not
acknowledged is its window, bounded in frames and bytes. While one window is full nothing is taken
from the I/O thread's queue; that fills, the socket is read no more, and the upstream waits.
"""

import logging
import random
from collections import deque
from functools import partial
from typing import Final

from actors.beginning import begin, claim
from actors.connector import TRIES, Connector
from actors.ingest_metrics import IngestMetrics
from actors.ingest_setup import DATA_ERROR, REPLACED, IngestSetup, exit_code
from actors.intake import UNRECEIVABLE, Intake, Verdict
from actors.position import Position
from actors.reader import Located, Place, StreamItem
from actors.sequence import Sequence
from actors.shard_window import Batch, ShardWindow
from actors.store.checkpoint import CheckpointError, CheckpointUnusable, Saved
from actors.store.diskspace import DiskSpace
from actors.store.fence import Fence, Fenced
from actors.summary import summarise, timed
from actors.upstream import End, Ending, Opened
from actors.vitals import UNKNOWN_LAG
from config.source import Source, Start
from engine.actor import Actor
from engine.address import Address
from engine.context import Context
from engine.iothread import IoThread
from engine.restarts import Backoff

__all__ = ["Ingest", "IngestSetup"]

_log = logging.getLogger(__name__)

CHUNK: Final = 256
"""Items taken from the queue at once: control and acks get their turn in between."""

TICK_SECONDS: Final = 0.2
DISK_SECONDS: Final = 5.0
GRACE_SECONDS: Final = 1.0
REWIND_SECONDS: Final = 300.0
"""How far before the last known event a host is read again that numbers anew."""


class Ingest(Actor):
    """See the file. From its peers it hears nothing but acks."""

    settings: IngestSetup

    def __init__(self, context: Context, settings: IngestSetup) -> None:
        super().__init__(context, settings)
        everything, limits = settings.settings, settings.settings.ingest
        self._source: Source = everything.parsed_source()
        self._is_capture = self._source.kind == "capture"
        self._start: Start = everything.parsed_start()
        self._every = limits.checkpoint_seconds
        self._idle_seconds = everything.source.idle_seconds
        self._until_caught_up = everything.run.until_caught_up
        self._windows = settings.windows()
        self._metrics = IngestMetrics(context.metrics)
        context.metrics.before_snapshot(self._measure)
        self._sequence = Sequence()
        fence = Fence(context.name, context.epoch, context.generation)
        self._position = Position(settings.checkpoint(fence))
        self._intake = Intake(
            self._source.host,
            self._windows,
            linger=limits.batch_linger_ms / 1000,
            post=context,
            sequence=self._sequence,
            position=self._position,
            metrics=self._metrics,
            tries=1 if self._is_capture else TRIES,
        )
        self._io: IoThread[StreamItem] = IoThread(
            context, items=limits.queue_frames, size=limits.queue_bytes
        )
        self._connector = Connector(
            self._source.address,
            settings.upstream(),
            submit=self._io.submit,
            after=context.after,
            now=context.clock.monotonic,
            place=self._place,
            backoff=Backoff(limits.reconnect_min_seconds, limits.reconnect_max_seconds),
            lasting=limits.stall_seconds,
            chance=random.Random(),  # noqa: S311 - jitter needs no secrecy
        )
        self._disk = settings.disk_space()
        self._live = False
        self._moment: float | None = None
        self._backlog: deque[StreamItem] = deque()
        self._blocked_at: float | None = None
        self._began = self._quiet_since = self._acked_at = 0.0
        self._disk_at = self._save_at = float("-inf")
        self._complete = self._finished = self._draining = self._replaced = False
        self._report_failed = False
        self._alone_since = float("inf")

    # -- life cycle

    def on_start(self) -> None:
        context = self.context
        try:
            outage_seconds = self.settings.settings.database.outage_seconds
            saved, begun = claim(self._position, context, outage_seconds)
        except (CheckpointError, CheckpointUnusable, Fenced) as error:
            context.fail(str(error), exit_code(error))
            return
        self._begin_where(saved, insists=self.settings.start_is_explicit and not begun)
        for window in self._windows:
            context.on_ack(window.address, partial(self._acked, window))
        self._began = self._quiet_since = context.clock.monotonic()
        self._io.start()
        context.watch(self._io.descriptor, self._work_off, when=self._may_read)
        self._tick()
        self._connector.connect()

    def on_drain(self) -> None:
        """Take nothing more in, have what is in the windows made durable, save, stop."""
        self._draining = True
        self._stop_reading()
        self._settle()

    def on_stop(self) -> None:
        self._position.close()

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        """A shard that came has credit to give."""
        self._intake.peer(peer, generation, up=up)
        if up:
            self._resume()

    def _begin_where(self, saved: Saved | None, *, insists: bool) -> None:
        """Begin after the checkpoint, or where this run was asked to."""
        beginning = begin(
            saved,
            self._start,
            insists=insists,
            name=self._source.address,
            now=self.context.clock.now(),
        )
        self._live = beginning.live
        self._sequence.begin(beginning.last, beginning.time, beginning.asked)
        if beginning.chosen:
            self._position.begin_at(beginning.last, replace=insists, proven=False)
        if beginning.moment is not None:
            self._search(beginning.moment)

    def _search(self, moment: float) -> None:
        """Go on with the events from a moment on."""
        self._intake.skip_before = moment
        # A file is quicker to read through than to search.
        self._moment = None if self._is_capture else moment

    # -- the stream

    def _may_read(self) -> bool:
        return self._blocked_at is None and not self._paused

    def _work_off(self) -> None:
        """Handle what the I/O thread has queued, until a window is full."""
        backlog, sequence = self._backlog, self._sequence
        if not backlog:
            backlog.extend(self._io.take(CHUNK))
        take, before = self._intake.take, sequence.last
        while backlog:
            item = backlog.popleft()
            if isinstance(item, bytes | str):
                verdict = Verdict.TAKEN if self._connector.discarding else take(item)
                handled = verdict is Verdict.TAKEN or self._go_on_after(verdict)
            else:
                handled = self._noted(item)
            if not handled:
                backlog.appendleft(item)
                break
        if sequence.last > before:
            self._quiet_since = self.context.clock.monotonic()
            self._connector.progressed()
            self._intake.mark(self.context.clock.now())

    def _go_on_after(self, verdict: Verdict) -> bool:
        """Handle a frame that was not simply taken; False where it has to wait for room."""
        if verdict is Verdict.FULL:
            self._block()
            return False
        if self._is_capture:
            # A file has no connection to make anew, and says nothing else the next time.
            _log.warning("%s: %s; reading on", self._source.address, self._intake.why)
            return True
        self._connector.drop(self._intake.why)
        if verdict is Verdict.RENUMBERED:
            known, asked = self._sequence.time, self._sequence.asked
            moment = (self.context.clock.now() if known is None else known) - REWIND_SECONDS
            _log.error(
                "%s numbers its events anew: what follows event %d is looked for by its time"
                if asked is None
                else "%s is not at the cursor %d yet that was asked for: going on at its newest",
                self._source.address,
                self._sequence.last if asked is None else asked,
            )
            self._search(moment)
        return True

    def _noted(self, item: Opened | Located | Ending) -> bool:
        """Handle what a connection says beside its frames; False where it has to wait."""
        match item:
            case Opened():
                if not self._connector.discarding:
                    self._connector.opened()
                    self._intake.connected(self._connector.stepped)
                    self._quiet_since = self.context.clock.monotonic()
            case Located(cursor):
                if self._connector.discarding:
                    return True
                if not self._intake.empty:
                    # What is under way has numbers of before; they must be through first.
                    self._block()
                    return False
                self._moment = None
                self._sequence.begin(cursor or -1, self._sequence.time)
                self._position.begin_at(cursor or -1, replace=True)
                _log.info("the events looked for come after number %d", cursor)
            case Ending():
                self._ended(item)
        return True

    def _ended(self, ending: Ending) -> None:
        self._metrics.ending(ending.end)
        name = self._source.address
        if self._connector.stopped:
            pass
        elif (short := self._sequence.short(ending.passed)) is not None:
            self._stop_reading()
            self.context.fail(f"{name} {short}: give --from-start, or a lower --cursor", DATA_ERROR)
        elif ending.end is End.EXHAUSTED:
            self._complete = True
            _log.info("%s has been read to its end", name)
            if not self._until_caught_up:
                _log.info("nothing more will come: stop the run, or give it another source")
        elif ending.end is End.BROKEN and self._is_capture:
            self._stop_reading()
            self.context.fail(ending.reason, DATA_ERROR)
        if self._connector.ended(ending):
            self._metrics.drop(UNRECEIVABLE)

    def _place(self) -> Place:
        """Where the next connection goes on: after what has come, which is in the windows."""
        from_now = self._live and self._sequence.last < 0
        return Place(None if from_now else self._sequence.cursor, self._moment)

    # -- back-pressure

    @property
    def _paused(self) -> bool:
        return self._disk is not None and self._disk.must_pause

    def _block(self) -> None:
        self._blocked_at = self.context.clock.monotonic()

    def _resume(self) -> None:
        """Whatever was full may have room now."""
        if self._blocked_at is None or self._paused:
            return
        self._metrics.backpressure.add(self.context.clock.monotonic() - self._blocked_at)
        self._blocked_at = None
        self._work_off()

    def _acked(self, window: ShardWindow, batches: list[Batch]) -> None:
        self._acked_at = self.context.clock.monotonic()
        self._intake.acked(window, batches)
        self._resume()
        if self._draining:
            self._settle()

    # -- what happens by the clock

    def _tick(self) -> None:
        now = self.context.clock.monotonic()
        if self._disk is not None and now >= self._disk_at:
            self._disk_at = now + DISK_SECONDS
            self._check_disk(self._disk)
        if now >= self._save_at:
            self._save_at = now + self._every
            self._save(now)
        if self._draining:
            self._settle()
        elif self._until_caught_up and not self._finished:
            self._look_for_the_end(now)
        self.context.after(min(TICK_SECONDS, self._every), self._tick)

    def _check_disk(self, disk: DiskSpace) -> None:
        was_paused = disk.must_pause
        try:
            disk.check()
        except OSError as error:
            _log.warning("the free space of %s cannot be measured: %s", disk.folder, error)
        self._metrics.paused.set(float(disk.must_pause))
        if was_paused and not disk.must_pause:
            self._resume()

    def _save(self, now: float, *, hurry: bool = False) -> bool:
        """Save the checkpoint; False where that did not succeed, or it is no longer ours."""
        try:
            saved = self._position.save(now, hurry=hurry)
        except Fenced as error:
            if not self._replaced:
                self._replaced = True
                self._stop_reading()
                self.context.fail(str(error), REPLACED)
            return False
        self.context.crash_point("ingest.after_save")
        return saved

    def _settle(self) -> None:
        """While draining: stop once everything in the windows is durable and saved."""
        self._intake.flush()
        now = self.context.clock.monotonic()
        if self._intake.empty:
            if self._save(now, hurry=True):
                self._end_run()
                self.context.stop()
        elif self._intake.abandoned:
            # Nobody is restarted any more; but who is up may not have been announced yet.
            self._alone_since = min(self._alone_since, now)
            if now - self._alone_since >= GRACE_SECONDS:
                _log.warning("no shard is left to take what is not durable yet: stopping")
                self._save(now, hurry=True)
                self.context.stop()
        else:
            self._alone_since = float("inf")
        if self._replaced:
            self.context.stop()

    def _end_run(self) -> None:
        try:
            self._position.end_run()
        except CheckpointError as error:
            _log.warning("%s; the next start will take this end for a crash", error)

    def _stop_reading(self) -> None:
        self._connector.stop()
        self._backlog.clear()
        self._blocked_at = None

    def _look_for_the_end(self, now: float) -> None:
        """Find out whether the source has no more, and then whether all of it is durable."""
        if not self._complete:
            reading = self._connector.open and self._may_read() and self._io.queued == (0, 0)
            if self._is_capture or not reading or now - self._quiet_since < self._idle_seconds:
                return
            name, asked = self._source.address, self._sequence.asked
            if asked is not None:
                _log.warning("%s sent nothing from the cursor %d on", name, asked)
            _log.info("caught up with %s: nothing new for a while", name)
            self._complete = True
            self._stop_reading()
        self._intake.flush()
        if not (self._intake.empty and self._save(now)):
            return
        try:
            if self._position.outbox_depth() > 0:
                return
            summary = summarise(self._position.tallies(), self._metrics.drops())
        except CheckpointError as error:
            log = _log.debug if self._report_failed else _log.warning
            log("%s; trying again until it can", error)
            self._report_failed = True
            return
        self._finished = True
        self.context.finish(
            timed(
                summary,
                checkpoint=self._position.saved or 0,
                handed=int(self._metrics.events.value),
                seconds=max(0.0, self._acked_at - self._began),
            )
        )

    def _in_touch(self, now: float) -> bool:
        """Whether all that the source has to send has come, or is coming."""
        silent = now - self._quiet_since >= self._idle_seconds
        return self._connector.open and self._may_read() and (self._intake.heard or silent)

    def _measure(self) -> None:
        """Set the gauges that are not kept up to date all the time."""
        metrics, clock = self._metrics, self.context.clock
        metrics.connected.set(float(self._connector.open))
        metrics.checkpoint.set(self._position.saved or 0)
        lag = self._position.lag(clock.now(), in_touch=self._in_touch(clock.monotonic()))
        metrics.lag.set(UNKNOWN_LAG if lag is None else lag)
        metrics.measure(self._windows)
