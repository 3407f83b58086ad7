"""Finding the cursor of a moment by bisection."""

import asyncio
import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.atproto import cbor, datetimes, frames
from actors.since import NEAR_ENOUGH, Event, Unreachable, cursor_at, first_event
from actors.upstream import Deliver, End, Ending, Opened


@dataclass
class Held:
    """What a source holds: events in order; counts the questions."""

    events: Sequence[Event]
    live: Event | None = None
    questions: int = 0

    async def probe(self, cursor: int) -> Event | None:
        self.questions += 1
        place = bisect.bisect_left(self.events, cursor, key=lambda event: event.seq)
        return self.events[place] if place < len(self.events) else self.live


def find(held: Held, moment: float) -> int:
    return asyncio.run(cursor_at(moment, held.probe))


@given(
    st.lists(st.tuples(st.integers(1, 50_000), st.integers(0, 500)), min_size=1, max_size=200),
    st.integers(0, 100_000),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_cursor_lies_before_the_moment_and_not_far(
    steps: list[tuple[int, int]], moment: int, has_live: bool
) -> None:
    seq, time, events = 1000, 0.0, []
    for seq_step, time_step in steps:
        seq, time = seq + seq_step, time + time_step
        events.append(Event(seq, time))
    # Asked for what it has not numbered yet, a relay may go on from now: with a lower number.
    live = Event(seq + 1, time + 1e6) if has_live else None
    cursor = find(Held(events, live), moment)
    wanted = [event.seq for event in events if event.time >= moment]
    if wanted:
        assert cursor <= wanted[0]
    in_vain = [e for e in events if e.seq >= cursor and e.time < moment]
    assert cursor == 0 or len(in_vain) <= NEAR_ENOUGH + 1


def test_three_days_of_a_large_network_take_some_thirty_questions() -> None:
    class Network(Held):
        async def probe(self, cursor: int) -> Event | None:
            self.questions += 1
            seq = max(cursor, 10**10)
            return Event(seq, seq / 500) if seq < 10**10 + 130_000_000 else None

    held = Network([])
    moment = (10**10 + 100_000_000) / 500
    cursor = find(held, moment)
    assert 0 <= 10**10 + 100_000_000 - cursor <= NEAR_ENOUGH
    assert held.questions <= 30


def test_a_source_that_is_younger_than_the_moment_starts_at_its_oldest() -> None:
    held = Held([Event(500, 1000.0)])
    assert find(held, 900.0) == 0
    assert held.questions == 1


def test_an_empty_source_starts_at_its_oldest() -> None:
    assert find(Held([]), 900.0) == 0


@dataclass
class Script:
    """An upstream that says what it is told to."""

    items: Sequence[bytes]
    ending: Ending | None
    opens: bool = True

    async def read(self, cursor: int | None, deliver: Deliver) -> Ending:
        assert cursor == 7
        if self.opens:
            await deliver(Opened())
        for item in self.items:
            await deliver(item)
        if self.ending is None:
            await asyncio.Event().wait()
            raise AssertionError("never set")
        return self.ending


def identity(seq: int, time: str) -> bytes:
    return frames.encode("#identity", {"seq": seq, "did": "did:plc:a", "time": time})


def ask(script: Script, patience: float = 5.0) -> Event | None:
    return asyncio.run(first_event(script, 7, patience=patience, silence=patience))


def test_the_first_event_is_the_answer_whatever_comes_before_it() -> None:
    info = frames.encode("#info", {"name": "OutdatedCursor"})
    broken = b"\xff\xff"
    script = Script([info, broken, identity(9, "2026-01-01T00:00:00.000Z")], None)
    moment = datetimes.parse("2026-01-01T00:00:00.000Z")
    assert moment is not None
    assert ask(script) == Event(9, datetimes.to_microseconds(moment) / 1e6)


def test_silence_is_the_answer_that_nothing_follows() -> None:
    assert ask(Script([], None), patience=0.05) is None


def test_a_relay_that_refuses_a_cursor_of_the_future_has_nothing_after_it() -> None:
    refusal = cbor.encode({"op": -1}) + cbor.encode({"error": "FutureCursor"})
    assert ask(Script([refusal], Ending(End.CLOSED, "closed"))) is None


def test_a_relay_that_cannot_be_reached_is_no_answer() -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        ask(Script([], Ending(End.UNREACHABLE, "connection refused"), opens=False))
    with pytest.raises(Unreachable, match="no answer"):
        ask(Script([], None, opens=False), patience=0.05)
