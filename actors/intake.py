"""The way of a frame: what it is, whether it is new, and into which shard's window it goes.

Everything that happens for each frame is here, and it is the hot path of the one process that all
frames pass. No I/O but telling shards, and that only where it need not wait.
"""

import logging
from collections.abc import Callable, Container
from enum import Enum
from typing import Final, Protocol

from actors.atproto import datetimes
from actors.atproto.errors import Reason, WireError, shorten
from actors.atproto.events import Kind
from actors.atproto.peek import Peek, peek
from actors.broken import BrokenFrames, Chance
from actors.ingest_metrics import IngestMetrics
from actors.messages import Frames
from actors.position import Position
from actors.sequence import Gap, Sequence
from actors.shard_window import Batch, ShardWindow
from config.units import show_duration
from engine.address import Address
from engine.message import Message
from engine.sharding import shard_of

_log = logging.getLogger(__name__)

BAD_NUMBERING: Final = "its events are numbered below what came before, and are newer"
CLOCK_SECONDS: Final = 300.0
"""How far the clocks of others may be ahead of ours (the protocol allows five minutes)."""

LOGGED: Final = 20
"""Lines that one connection may put into the log by what it sends; the counters go on."""

OF_EVERYBODY: Final = frozenset((Kind.ACCOUNT, Kind.IDENTITY))
"""Events that shards judge for themselves: they may be about whom something here was written by."""

OUT_OF_ORDER: Final = "out_of_order"
"""The drop of an event with a lower number than one before it on the same connection."""

UNRECEIVABLE: Final = "unreceivable"
"""The drop of an event that cannot be received; the first of several is counted at once."""

OUTDATED: Final = "OutdatedCursor"
FUTURE: Final = "FutureCursor"


class Verdict(Enum):
    """What became of a frame."""

    TAKEN = "taken"  # it is in a window, or needs nothing
    FULL = "full"  # its window has no room: offer it again later
    BROKEN = "broken"  # it cannot be read; the connection is not to be trusted
    REFUSED = "refused"  # the upstream says why it closes
    RENUMBERED = "renumbered"  # the upstream's numbers began anew


class Post(Protocol):
    """How messages leave, as far as the intake knows it; a context is one."""

    def tell(self, to: Address, message: Message, *, token: Batch) -> None: ...

    def room(self, to: Address) -> tuple[int, int]: ...

    def after(self, seconds: float, callback: Callable[[], None]) -> object: ...


class Intake:
    """Takes frames, one by one, in the order of the stream.

    Args:
        host: whose numbers the frames carry.
        windows: one for each shard, in order.
        linger: seconds for which an incomplete batch waits for more.
        post: sends the batches.
        sequence, position, metrics: kept up to date.
        tries: how many connections must break at one place to step over what is broken there.
        members: whose events are taken; None: everybody's.

    Attributes:
        skip_before: events before this Unix time are left out, until the first that is not.
        why: what was wrong, after a verdict that gives the connection up.
    """

    def __init__(
        self,
        host: str,
        windows: list[ShardWindow],
        *,
        linger: float,
        post: Post,
        sequence: Sequence,
        position: Position,
        metrics: IngestMetrics,
        tries: int,
        members: Container[str] | None = None,
    ) -> None:
        self._host = host
        self._windows = windows
        self._shards = len(windows)
        self._linger = linger
        self._post = post
        self._sequence = sequence
        self._position = position
        self._metrics = metrics
        self._members = members
        self._broken = BrokenFrames(tries)
        self._lingers = False
        self._first = False
        self._time: str | None = None
        self._lines = self._stepped = 0
        self.skip_before: float | None = None
        self.why = ""

    def move(self, host: str) -> None:
        """Go on with another host, when everything taken is durable."""
        self._host = host
        self.skip_before = None

    def connected(self, stepped: int = 0) -> None:
        """A connection opened: its first event tells whether something is missing.

        `stepped` is how many events at most it leaves out, as they cannot be received.
        """
        self._metrics.connections.add()
        self._stepped = stepped
        self._first = True
        self._lines = 0
        self._broken.connected()
        self._sequence.connected()

    def take(self, frame: bytes | str) -> Verdict:
        """Take one frame; text ones are as broken as what cannot be read."""
        if isinstance(frame, str):
            raw = frame.encode("utf-8", "surrogatepass")
            return self._unreadable(raw, WireError(Reason.BAD_FRAME, "a text frame"))
        try:
            seen = peek(frame)
        except WireError as error:
            return self._unreadable(frame, error)
        seq, did = seen.seq, seen.did
        if seq is None or did is None:
            return self._without_owner(seen)
        sequence = self._sequence
        if seq <= sequence.last and not self._goes_back(seq):
            return self._old(seen)
        if (self._first or self.skip_before is not None) and not self._look_closer(seen, seq):
            return Verdict.TAKEN
        members = self._members
        if members is not None and did not in members and seen.kind not in OF_EVERYBODY:
            return self._pass_by(seq, seen)
        size = len(frame)
        window = self._windows[shard_of(did, self._shards)]
        if not window.fits(size):
            return Verdict.FULL
        if not window.joins(size) and not self._send(window):
            return Verdict.FULL
        sequence.last = seq
        self._time = seen.time
        metrics = self._metrics
        metrics.frames[seen.kind].value += 1
        metrics.events.value += 1
        metrics.bytes.value += size
        self._position.begin(seq)
        if window.add(seq, frame):
            window.due = not self._send(window)
        elif not self._lingers:
            self._lingers = True
            self._post.after(self._linger, self.flush)
        return Verdict.TAKEN

    def _pass_by(self, seq: int, seen: Peek) -> Verdict:
        """Leave an event out that nobody here is concerned with."""
        self._sequence.last = seq
        self._time = seen.time
        metrics = self._metrics
        metrics.frames[seen.kind].value += 1
        metrics.foreign.value += 1
        self._position.pass_over(seq)
        return Verdict.TAKEN

    def mark(self, now: float) -> None:
        """Note the time of the last event taken; once for a run of frames is enough.

        One that lies ahead of us (`now`, Unix seconds) says nothing about the stream.
        """
        text, self._time = self._time, None
        if text is None:
            return
        time = unix_time(text)
        if time is not None and time <= now + CLOCK_SECONDS:
            self._sequence.time = time
            self._position.mark(self._sequence.last, time, now)

    def flush(self) -> None:
        """Send what lingers, as far as there is room; the rest goes when there is."""
        self._lingers = False
        for window in self._windows:
            if window.frames and not self._send(window):
                window.due = True

    def acked(self, window: ShardWindow, batches: list[Batch]) -> None:
        """A shard has made these batches durable."""
        for batch in batches:
            window.release(batch)
            self._position.finish(batch.positions)
        if window.due and window.frames:
            self._send(window)

    @property
    def heard(self) -> bool:
        """Whether this connection has brought something new."""
        return not self._first

    @property
    def empty(self) -> bool:
        """Whether everything taken is durable."""
        return not any(window.unacked_frames for window in self._windows)

    def peer(self, address: Address, generation: int, *, up: bool) -> None:
        """A generation of a shard came or went; what waited for the first one goes to it."""
        for window in self._windows:
            if window.address == address and (up or window.generation == generation):
                window.generation = generation if up else 0
                if up and window.due and window.frames:
                    self._send(window)

    @property
    def abandoned(self) -> bool:
        """Whether something is not durable, and no shard is up that has any of it."""
        waiting = [window for window in self._windows if window.unacked_frames]
        return bool(waiting) and not any(window.generation for window in waiting)

    def _send(self, window: ShardWindow) -> bool:
        messages, size = self._post.room(window.address)
        if messages < 1 or size < window.message_size:
            return False
        frames, batch = window.cut()
        self._post.tell(window.address, Frames(self._host, frames), token=batch)
        return True

    def _unreadable(self, frame: bytes, error: WireError) -> Verdict:
        self.why = f"it sent a frame that cannot be read ({shorten(error.detail, 200)})"
        chance = self._broken.judge(self._sequence.last)
        if chance is Chance.ANOTHER:
            return Verdict.BROKEN
        if chance is Chance.COUNTED:
            return Verdict.TAKEN
        self._metrics.drop(error.reason)
        self._say(
            logging.ERROR,
            "%s: stepping over a frame of %d bytes that cannot be read (%s: %s) after event %d",
            self._host,
            len(frame),
            error.reason,
            error.detail,
            self._sequence.last,
        )
        return Verdict.TAKEN

    def _without_owner(self, seen: Peek) -> Verdict:
        self._metrics.frames[seen.kind].value += 1
        if seen.kind is Kind.ERROR:
            self.why = f"it refuses to go on: {_words(seen)}"
            return Verdict.RENUMBERED if seen.name == FUTURE else Verdict.REFUSED
        if seen.kind is Kind.INFO:
            outdated = seen.name == OUTDATED
            self._sequence.announced_outdated |= outdated
            level = logging.WARNING if outdated else logging.INFO
            self._say(level, "%s says: %s", self._host, _words(seen))
        elif seen.seq is not None and seen.seq > self._sequence.last:
            self._sequence.last = seen.seq
            self._position.pass_over(seen.seq)
        return Verdict.TAKEN

    def _old(self, seen: Peek) -> Verdict:
        self._metrics.repeated.value += 1
        if not self._first and seen.seq != self._sequence.last:
            # What comes again comes before what is new; this may never have come before.
            self._metrics.drop(OUT_OF_ORDER)
        if self._sequence.restarted_at(unix_time(seen.time)):
            self.why = BAD_NUMBERING
            return Verdict.RENUMBERED
        return Verdict.TAKEN

    def _goes_back(self, seq: int) -> bool:
        """Whether the stream goes on at this event, as the cursor asked for lies beyond it."""
        sequence = self._sequence
        if not sequence.asked_too_much(seq):
            return False
        _log.error(
            "%s is at event %d, before the cursor %d that was asked for: going on at its events",
            self._host,
            seq,
            sequence.asked,
        )
        sequence.begin(seq - 1)
        self._position.begin_at(seq - 1, replace=True)
        return True

    def _say(self, level: int, text: str, *values: object) -> None:
        """Log what the upstream caused, as long as it does not cause too much."""
        self._lines += 1
        if self._lines <= LOGGED:
            _log.log(level, text, *values)
            if self._lines == LOGGED:
                _log.warning("%s: the like is only counted until it reconnects", self._host)

    def _look_closer(self, seen: Peek, seq: int) -> bool:
        """At the first event of a connection, and at those that may be too old; False for one."""
        time = unix_time(seen.time)
        sequence = self._sequence
        if self._first:
            self._first = False
            sequence.asked = None
            if sequence.last < 0:
                self._position.begin_at(seq - 1)
            more = min(self._stepped, seq - sequence.last - 1) - 1
            if more > 0:
                self._metrics.drop(UNRECEIVABLE, more)
            gap = sequence.gap_before(seq, time)
            if gap is not None:
                self._tell_gap(gap)
        if self.skip_before is not None:
            if time is not None and time < self.skip_before:
                self._metrics.skipped.value += 1
                sequence.last = seq
                self._position.pass_over(seq)
                return False
            self.skip_before = None
        return True

    def _tell_gap(self, gap: Gap) -> None:
        if gap.lost and gap.after < 0:
            self._metrics.gaps.add()
            _log.error(
                "%s holds nothing as old as what was read last: %s of the stream are missing; going"
                " on at event %d",
                self._host,
                "unknown time" if gap.seconds is None else show_duration(gap.seconds),
                gap.first,
            )
        elif gap.lost:
            self._metrics.gaps.add()
            _log.error(
                "%s no longer holds what followed event %d: %s of the stream are missing,"
                " up to %d events; going on at event %d",
                self._host,
                gap.after,
                "unknown time" if gap.seconds is None else show_duration(gap.seconds),
                gap.events,
                gap.first,
            )
        # After a search by time, and where we step over something, no next number was asked for.
        elif self.skip_before is None and gap.events > self._stepped:
            _log.info(
                "%s: events %d to %d were not sent%s; a source may skip numbers",
                self._host,
                gap.after + 1,
                gap.first - 1,
                "" if gap.seconds is None else f" ({max(0.0, gap.seconds):.0f} s)",
            )


def unix_time(text: str | None) -> float | None:
    """Unix seconds of a frame's time; None where it has none that can be read."""
    moment = datetimes.parse(text)
    return None if moment is None else datetimes.to_microseconds(moment) / 1_000_000


def _words(seen: Peek) -> str:
    name = shorten(seen.name or "no name")
    return f"{name}, {shorten(seen.message, 200)}" if seen.message else name
