"""Reads one labeler in the I/O thread, for as long as it is wanted: finds it, connects, checks what
comes, and connects again after each ending, by itself.

What is delivered has signatures that hold. There is a bound on what one labeler may have delivered
and not yet written, so that one that sends much leaves room for the others; past it, and while the
queue to the actor is full, its socket waits.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from actors.atproto import label as labels
from actors.atproto.errors import WireError
from actors.atproto.events import ErrorFrame, Info
from actors.atproto.label import Label, LabelRefused, Refusal
from actors.broken import BrokenFrames, Chance
from actors.label_stream import LabelStream
from actors.labeler_identity import Known, LabelerIdentity, Lookup, NoAnswer, NoLabeler
from actors.outbound import Outbound, OutboundError
from actors.store.labelers import LabelerState
from actors.upstream import End, Ending, Item, Opened
from engine.restarts import Backoff

REWIND_SECONDS: Final = 3600.0
"""How soon a labeler with another key is read again from before the labels that did not hold."""
TRIES: Final = 3
"""What breaks a connection this many times in a row is stepped over."""
LASTING_SECONDS: Final = 60.0
IDENTITY_SECONDS: Final = 3600.0
"""An identity that was looked up this long ago is looked up again before the next connection."""
UNWRITTEN_LABELS: Final = 2_000
UNWRITTEN_BYTES: Final = 2 * 1024 * 1024

# Looking for a new key when signatures do not hold: a labeler whose signatures never do must not
# have a directory asked for each of them.
_REFRESHES: Final = Backoff(1.0, 300.0)
# Between two turns that the other readers get while many signatures are checked.
_TURN: Final = 50


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """See [labels] in config/default.toml."""

    backoff: Backoff
    stall_seconds: float
    max_frame_bytes: int


@dataclass(frozen=True, slots=True)
class Began:
    """The labeler is to be read anew, at this endpoint, after another cursor than it was read to
    (None: from the beginning).
    """

    did: str
    session: int
    endpoint: str
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The labeler answered."""

    did: str
    session: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The labeler cannot be read just now, and will be tried again after some seconds."""

    did: str
    session: int
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Outdated:
    """The labeler no longer keeps all that came after the cursor, and what it says of that."""

    did: str
    session: int
    cursor: int | None
    message: str


@dataclass(slots=True)
class Received:
    """What one frame held. `after` is the number of the frame before it (None: the beginning), and
    `seq` its own, the same where it has none.
    """

    did: str
    session: int
    endpoint: str
    after: int | None
    seq: int | None
    size: int
    labels: list[Label] = field(default_factory=list)
    refused: Counter[Refusal] = field(default_factory=Counter)
    example: str = ""


ReaderItem = Began | Connected | Failed | Outdated | Received


class _GiveUp(Exception):
    """This connection is of no more use; says why."""


class LabelerReader:
    """The reader of one labeler.

    Args:
        did: the labeler.
        session: the number of this reader; all that it delivers carries it.
        state: how far it was read before.
        known: what is known of it without looking it up.
        settings: see there.
        outbound: connects.
        lookup: finds the labeler, and its key.
        now: tells the time in Unix seconds.
        chance: for jitter.
        sleep: waits.
    """

    def __init__(
        self,
        did: str,
        session: int,
        state: LabelerState,
        settings: ReaderSettings,
        *,
        known: Known | None = None,
        outbound: Outbound,
        lookup: Lookup,
        now: Callable[[], float],
        chance: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.did = did
        self.session = session
        self._endpoint, self._cursor = state
        self._settings = settings
        self._outbound = outbound
        self._lookup = lookup
        self._now = now
        self._chance = chance
        self._sleep = sleep
        self._identity: LabelerIdentity | None = None
        # When it is looked up before the next connection, at the latest.
        self._looks_at = 0.0
        if known is not None:
            self._identity, self._looks_at = known.identity, now() + known.seconds
        self._refreshes = 0
        self._refresh_at = 0.0
        # Where it was before the first label whose signature did not hold by the key that is known.
        self._doubt: tuple[int | None] | None = None
        self._rewound_at = float("-inf")
        self._broken = BrokenFrames(TRIES)
        self._unreceivable = 0
        self._failures = 0
        self._first = True
        self._opened_at: float | None = None
        self._unwritten_labels = self._unwritten_bytes = 0
        self._room = asyncio.Event()
        self._deliver: Callable[[ReaderItem], Awaitable[None]]

    async def run(self, deliver: Callable[[ReaderItem], Awaitable[None]]) -> None:
        """Read until it is cancelled."""
        self._deliver = deliver
        while True:
            self._opened_at = None
            try:
                ending = await self._once()
            except NoLabeler as error:
                ending = Ending(End.UNREACHABLE, str(error), self._settings.backoff.maximum)
            except OutboundError as error:
                ending = Ending(End.UNREACHABLE, str(error), error.retry_after)
            except _GiveUp as error:
                ending = Ending(End.BROKEN, str(error))
            await self._sleep(await self._after(ending))

    def written(self, item: Received) -> None:
        """Make room: this that was delivered is written, or thrown away."""
        self._unwritten_labels -= len(item.labels)
        self._unwritten_bytes -= item.size
        self._room.set()

    async def _once(self) -> Ending:
        """One connection, from looking the labeler up to its ending."""
        identity = await self._identified()
        if identity.endpoint != self._endpoint:
            await self._begin(identity.endpoint)
        stream = LabelStream(
            identity.stream,
            self._settings.max_frame_bytes,
            self._settings.stall_seconds,
            outbound=self._outbound,
        )
        cursor = self._cursor or 0
        if self._unreceivable >= TRIES:
            # What cannot be received has no number that we know, so each try asks for one more.
            cursor += self._unreceivable - TRIES + 1
        return await stream.read(cursor, self._take)

    async def _after(self, ending: Ending) -> float:
        """Tell of an ending; returns the seconds before the next connection."""
        opened_at, now = self._opened_at, self._now()
        if opened_at is not None and now - opened_at >= LASTING_SECONDS:
            self._failures = 0
        if ending.end is End.STALLED and opened_at is not None:
            # Labelers are silent for hours; that they are still there shows when they are asked.
            return self._settings.backoff.delay(1, self._chance)
        if ending.end is End.UNRECEIVABLE:
            self._unreceivable += 1
            if self._unreceivable == TRIES:
                await self._deliver(self._refusal(Refusal.UNRECEIVABLE, ending.reason))
        self._failures += 1
        delay = self._settings.backoff.delay(self._failures, self._chance)
        delay = max(delay, ending.retry_after)
        await self._deliver(Failed(self.did, self.session, ending.reason, delay))
        return delay

    async def _identified(self) -> LabelerIdentity:
        """The labeler's identity; an old one is looked up again, and does where that fails."""
        if self._identity is None or self._failures or self._now() >= self._looks_at:
            try:
                return await self._look_up()
            except (OutboundError, NoAnswer):
                if self._identity is None:
                    raise
        return self._identity

    async def _look_up(self) -> LabelerIdentity:
        """Look its identity up; with another key, what did not hold before is to be read again."""
        before = self._identity
        self._identity = found = await self._lookup(self.did)
        self._looks_at = self._now() + IDENTITY_SECONDS
        if before is not None and before.key != found.key and self._doubt is not None:
            (cursor,), self._doubt = self._doubt, None
            if self._endpoint is not None and self._now() - self._rewound_at >= REWIND_SECONDS:
                self._rewound_at = self._now()
                await self._begin(self._endpoint, cursor)
        return found

    @property
    def doubt(self) -> tuple[int | None] | None:
        """Where it was before the first label whose signature did not hold, if there was any.

        The actor may look at it from its own thread.
        """
        return self._doubt

    async def _begin(self, endpoint: str, cursor: int | None = None) -> None:
        """Read anew, after a cursor that is not the one that was read to."""
        self._endpoint, self._cursor, self._doubt = endpoint, cursor, None
        await self._deliver(Began(self.did, self.session, endpoint, cursor))

    async def _take(self, item: Item) -> None:
        """Take what the stream delivers. Raises _GiveUp, and what looking a key up raises."""
        if isinstance(item, Opened):
            self._opened_at = self._now()
            self._first = True
            self._broken.connected()
            await self._deliver(Connected(self.did, self.session))
        elif isinstance(item, bytes | str):
            await self._frame(item)

    async def _frame(self, frame: bytes | str) -> None:
        try:
            if isinstance(frame, str):
                await self._unreadable("a text frame")
                return
            event = labels.decode(frame)
        except WireError as error:
            await self._unreadable(str(error))
            return
        match event:
            case ErrorFrame(error="FutureCursor"):
                assert self._endpoint is not None
                await self._begin(self._endpoint)
                raise _GiveUp("its numbers are below those that it gave before: beginning anew")
            case ErrorFrame(name, message):
                raise _GiveUp(f"it refuses to go on: {name[:80]!a} {(message or '')[:120]!a}")
            case labels.Labels(seq, values):
                await self._labels(seq, values, len(frame))
            case Info("OutdatedCursor", message):
                said = (message or "")[:120]
                await self._deliver(Outdated(self.did, self.session, self._cursor, said))
            case Info() | None:
                pass

    async def _unreadable(self, why: str) -> None:
        chance = self._broken.judge(self._cursor or 0)
        if chance is Chance.ANOTHER:
            raise _GiveUp(f"it sent a frame that cannot be read ({why})")
        if chance is Chance.OVER:
            await self._deliver(self._refusal(Refusal.UNREADABLE, why))

    async def _labels(self, seq: int, values: list[Any], size: int) -> None:
        first, self._first = self._first, False
        cursor = self._cursor
        if cursor is not None and seq <= cursor:
            if seq == cursor:
                return  # whether the cursor itself comes again differs from server to server
            if first:
                assert self._endpoint is not None
                await self._begin(self._endpoint)
                raise _GiveUp(f"it is at {seq}, before the cursor {cursor}: beginning anew")
            # Out of order: what it says counts all the same, as the times of labels decide.
        received = self._received(size)
        if cursor is None or seq > cursor:
            received.seq = seq
        now = int(self._now() * 1_000_000)
        for number, value in enumerate(values):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            try:
                received.labels.append(await self._checked(value, now))
            except LabelRefused as refused:
                received.refused[refused.reason] += 1
                received.example = received.example or refused.detail
                if refused.reason is Refusal.BAD_SIGNATURE and self._doubt is None:
                    self._doubt = (cursor,)
        self._cursor = received.seq
        # Whatever it was that could not be received lies behind.
        self._unreceivable = 0
        self._failures = 0
        await self._wait_for_room(received)
        await self._deliver(received)

    async def _checked(self, value: Any, now: int) -> Label:
        """The label in a value. Raises LabelRefused, and what looking its key up again raises."""
        label = labels.read(value, self.did, now)
        assert self._identity is not None
        if labels.is_signed(label, self._identity.key):
            return label
        if self._now() >= self._refresh_at:
            before, doubt, found = self._identity, self._doubt, await self._look_up()
            if doubt is not None and self._doubt is None:
                raise _GiveUp("its key is another one: reading again what did not hold")
            self._refreshes = self._refreshes + 1 if found.key == before.key else 0
            pause = _REFRESHES.delay(max(self._refreshes, 1), self._chance)
            self._refresh_at = self._now() + pause
            if labels.is_signed(label, found.key):
                return label
        raise LabelRefused(Refusal.BAD_SIGNATURE, f"{label.val[:40]!a} on {label.uri[:120]!a}")

    async def _wait_for_room(self, received: Received) -> None:
        while self._unwritten_labels > UNWRITTEN_LABELS or self._unwritten_bytes > UNWRITTEN_BYTES:
            self._room.clear()
            await self._room.wait()
        self._unwritten_labels += len(received.labels)
        self._unwritten_bytes += received.size

    def _received(self, size: int) -> Received:
        assert self._endpoint is not None
        cursor = self._cursor
        return Received(self.did, self.session, self._endpoint, cursor, cursor, size)

    def _refusal(self, reason: Refusal, why: str) -> Received:
        refused = self._received(0)
        refused.refused[reason] += 1
        refused.example = why
        return refused
