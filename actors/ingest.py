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

from actors.beginning import Claimed, begin, claim, renumbered
from actors.completion import Completion
from actors.connector import TRIES, Connector
from actors.disk_watch import DiskWatch
from actors.draining import Draining
from actors.ingest_metrics import IngestMetrics
from actors.ingest_setup import DATA_ERROR, REPLACED, IngestSetup, exit_code
from actors.intake import UNRECEIVABLE, Intake, Verdict
from actors.membership import Membership
from actors.position import Position
from actors.reader import Located, Place, StreamItem
from actors.sequence import Sequence
from actors.shard_window import Batch, ShardWindow
from actors.standbys import Standbys
from actors.store.checkpoint import CheckpointError, CheckpointUnusable
from actors.store.fence import Fence, Fenced
from actors.upstream import End, Ending, Opened
from actors.vitals import UNKNOWN_LAG
from config.source import Start
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


class Ingest(Actor):
    """See the file. From its peers it hears nothing but acks."""

    settings: IngestSetup

    def __init__(self, context: Context, settings: IngestSetup) -> None:
        super().__init__(context, settings)
        everything, limits = settings.settings, settings.settings.ingest
        self._sources = Standbys(everything.parsed_sources(), everything.source.failover_seconds)
        self._source = self._sources.source
        self._is_capture = self._source.kind == "capture"
        self._start: Start = everything.parsed_start()
        self._every = limits.checkpoint_seconds
        self._idle_seconds = everything.source.idle_seconds
        self._until_caught_up = everything.run.until_caught_up
        self._windows = settings.windows()
        self._metrics = IngestMetrics(context.metrics)
        context.metrics.before_snapshot(self._measure)
        self._sequence = Sequence()
        self._fence = fence = Fence(context.name, context.epoch, context.generation)
        self._position = Position(settings.checkpoint(fence, self._source))
        table = settings.personal(fence)
        self._membership = None if table is None else Membership(table, context, self._metrics)
        self._intake = Intake(
            self._source.host,
            self._windows,
            linger=limits.batch_linger_ms / 1000,
            post=context,
            sequence=self._sequence,
            position=self._position,
            metrics=self._metrics,
            tries=1 if self._is_capture else TRIES,
            members=None if self._membership is None else self._membership.members,
        )
        self._io: IoThread[StreamItem] = IoThread(
            context, items=limits.queue_frames, size=limits.queue_bytes
        )
        self._connector = self._new_connector()
        self._disk = DiskWatch(settings.disk_space(), self._metrics.paused)
        self._live = False
        self._moment: float | None = None
        self._backlog: deque[StreamItem] = deque()
        self._blocked_at: float | None = None
        self._end = Draining(self._intake, self._position)
        self._completion = Completion(self._position, self._metrics)
        self._began = self._quiet_since = self._acked_at = 0.0
        self._save_at = float("-inf")
        self._complete = self._finished = self._draining = self._replaced = False
        self._moving = False

    # -- life cycle

    def on_start(self) -> None:
        context = self.context
        if not self._claim():
            return
        for window in self._windows:
            context.on_ack(window.address, partial(self._acked, window))
        self._began = self._quiet_since = context.clock.monotonic()
        self._io.start()
        context.watch(self._io.descriptor, self._work_off, when=self._may_read)
        self._tick()
        self._sources.heard(self._began)
        self._connector.connect()

    def on_drain(self) -> None:
        """Take nothing more in, have what is in the windows made durable, save, stop."""
        self._draining = True
        self._stop_reading()
        self._settle()

    def on_stop(self) -> None:
        self._position.close()
        if self._membership is not None:
            self._membership.close()

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        """A shard that came has credit to give."""
        self._intake.peer(peer, generation, up=up)
        if up:
            self._resume()

    def _new_connector(self) -> Connector:
        limits, context = self.settings.settings.ingest, self.context
        return Connector(
            self._source.address,
            self.settings.upstream(self._source),
            submit=self._io.submit,
            after=context.after,
            now=context.clock.monotonic,
            place=self._place,
            backoff=Backoff(limits.reconnect_min_seconds, limits.reconnect_max_seconds),
            lasting=limits.stall_seconds,
            chance=random.Random(),  # noqa: S311 - jitter needs no secrecy
        )

    def _claim(self, *, moved: bool = False) -> bool:
        """Take over what is saved of the source, and begin; False where the run cannot go on."""
        context, outage_seconds = self.context, self.settings.settings.database.outage_seconds
        try:
            claimed = claim(self._position, context, outage_seconds)
            if self._membership is not None and not moved:
                self._membership.begin(outage_seconds)
        except (CheckpointError, CheckpointUnusable, Fenced) as error:
            context.fail(str(error), exit_code(error))
            return False
        insists = self.settings.start_is_explicit and not claimed.begun and not moved
        self._begin_where(claimed, insists=insists)
        return True

    def _begin_where(self, claimed: Claimed, *, insists: bool) -> None:
        """Begin after the checkpoint, or where this run was asked to."""
        beginning = begin(
            claimed.saved,
            self._start,
            insists=insists,
            name=self._source.address,
            now=self.context.clock.now(),
            elsewhere=None if self._is_capture else claimed.elsewhere,
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
            self._sources.heard(self._quiet_since)
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
            now = self.context.clock.now()
            self._search(renumbered(self._sequence, name=self._source.address, now=now))
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
        now = self.context.clock.monotonic()
        if not self._connector.stopped and self._sources.give_up(now) and self._may_move():
            _log.warning("nothing new from %s: another source takes over", name)
            self._stop_reading()
            self._moving = True

    def _may_move(self) -> bool:
        """Whether another source can go on: a cursor that was asked for is of this one."""
        return self._start.kind != "cursor" or self._position.saved is not None

    def _move(self) -> None:
        """Have another source take over, once all that came of the last one is durable."""
        self._intake.flush()
        now = self.context.clock.monotonic()
        if not (self._intake.empty and self._save(now)):
            return
        self._moving = False
        self._source = self._sources.next(now)
        self._position.move(self.settings.checkpoint(self._fence, self._source))
        self._intake.move(self._source.host)
        self._moment = None
        self._connector = self._new_connector()
        if self._claim(moved=True):
            self._metrics.failovers.add()
            self._connector.connect()

    def _place(self) -> Place:
        """Where the next connection goes on: after what has come, which is in the windows."""
        from_now = self._live and self._sequence.last < 0
        return Place(None if from_now else self._sequence.cursor, self._moment)

    # -- back-pressure

    @property
    def _paused(self) -> bool:
        return self._disk.must_pause

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
        if self._disk.look(now):
            self._resume()
        if now >= self._save_at:
            self._save_at = now + self._every
            self._save(now)
        if self._draining:
            self._settle()
        elif self._moving:
            self._move()
        elif self._until_caught_up and not self._finished:
            self._look_for_the_end(now)
        self.context.after(min(TICK_SECONDS, self._every), self._tick)

    def _save(self, now: float, *, hurry: bool = False) -> bool:
        """Save the checkpoint, and see whose events are taken; False where the former did not
        succeed, or is no longer ours.
        """
        try:
            if self._membership is not None and not self._draining:
                self._membership.look()
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
        now = self.context.clock.monotonic()
        if self._end.over(now, lambda: self._save(now, hurry=True)) or self._replaced:
            self.context.stop()

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
        report = self._completion.report(max(0.0, self._acked_at - self._began))
        if report is not None:
            self._finished = True
            self.context.finish(report)

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
