"""Windows and lanes under any interleaving of sends, arrivals, acks, deaths and reconnects."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.edge import Incoming
from engine.errors import MessageTooBig
from engine.invariants import InvariantViolated, window_bounded
from engine.window import (
    DEATHS_BEFORE_BURIAL,
    DEATHS_BEFORE_ISOLATION,
    UNPROVEN_BEFORE_BURIAL,
    Entry,
    Window,
)

MESSAGES = 6
BYTES = 40


def body_of(items: Sequence[int]) -> bytes:
    return ",".join(map(str, items)).encode()


def items_of(body: bytes) -> list[int]:
    return [int(item) for item in body.decode().split(",")]


def split(body: bytes) -> list[bytes]:
    return [body_of([item]) for item in items_of(body)]


class Conversation(RuleBasedStateMachine):
    """One sender and the generations of one receiver, some of whose items are deadly.

    The receiver writes an item to `stored` when it handles it, and forgets what it held when it
    dies; `stored` is what is durable. A connection is a queue each way, cut off by a death.
    """

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(MESSAGES, BYTES, keeps=True, split=split)
        self.generation = 0
        self.up = False
        self.lane = Incoming("sender")
        self.wire: deque[tuple[int, bytes, bool]] = deque()
        self.back: deque[int] = deque()
        self.told: list[int] = []
        self.tokens: list[int] = []
        self.pushed = 0
        self.stored: list[int] = []
        self.held: list[int] = []
        self.buried: list[int] = []
        self.deadly: set[int] = set()

    def _send(self, entries: list[Entry]) -> None:
        self.wire.extend((entry.number, entry.body, entry.alone) for entry in entries)

    def _die(self, *, crashed: bool) -> None:
        self.up = False
        self.wire.clear()
        self.back.clear()
        self.held.clear()
        loss = self.window.disconnect(crashed=crashed)
        assert not loss.dropped
        if loss.condemned is not None:
            self.buried.extend(items_of(loss.condemned.body))
            self.tokens.extend(self.window.bury())

    @precondition(lambda self: not self.up)
    @rule()
    def receiver_comes_up(self) -> None:
        self.generation += 1
        self.up = True
        self.lane = Incoming("sender")
        self.window.connect()
        self._send(self.window.take())

    @precondition(lambda self: self.up)
    @rule(crashed=st.booleans())
    def receiver_goes(self, crashed: bool) -> None:
        self._die(crashed=crashed)

    @rule(count=st.integers(1, 4), deadly=st.sampled_from([False, False, False, True]))
    def tell(self, count: int, deadly: bool) -> None:
        first = len(self.told)
        items = list(range(first, first + count))
        body = body_of(items)
        if not self.window.fits(len(body)):
            with pytest.raises(ValueError, match="no credit"):
                self.window.push(body)
            return
        self.told.extend(items)
        if deadly:
            self.deadly.add(items[-1])
        self.window.push(body, self.pushed)
        self.pushed += 1
        self._send(self.window.take())

    @precondition(lambda self: self.wire)
    @rule(acks=st.booleans())
    def receive(self, acks: bool) -> None:
        number, body, alone = self.wire.popleft()
        assert self.lane.accept(1, number)
        items = items_of(body)
        if alone:
            self.window.begun(number)
            assert not self.held, "a message delivered alone came together with others"
        for item in items:
            if item in self.deadly:
                self._die(crashed=True)
                return
            self.held.append(item)
        if acks or alone:
            self.stored.extend(self.held)
            self.held.clear()
            self.lane.ack(1, number)
            due = self.lane.due()
            assert due
            self.back.append(due)

    @precondition(lambda self: self.back)
    @rule()
    def ack_arrives(self) -> None:
        self.tokens.extend(self.window.ack(self.back.popleft()))
        self._send(self.window.take())

    @invariant()
    def bounds_hold(self) -> None:
        window = self.window
        window_bounded(window.used_messages, window.used_bytes, MESSAGES, BYTES)
        assert window.room()[0] >= 0
        assert window.room()[1] >= 0

    @invariant()
    def tokens_come_once_and_in_order(self) -> None:
        assert self.tokens == list(range(len(self.tokens)))

    @invariant()
    def nothing_acked_is_lost(self) -> None:
        """What the window let go of is stored, or buried for having killed."""
        known = set(self.stored) | set(self.buried)
        kept = {
            item
            for entry in self.window._entries  # the test looks inside
            for item in items_of(entry.body)
        }
        assert known | kept >= set(self.told)

    @invariant()
    def order_holds(self) -> None:
        first_times = list(dict.fromkeys(self.stored))
        assert first_times == sorted(first_times)

    def teardown(self) -> None:
        """Let everything through: in the end all is stored or buried, and the window empty."""
        for _ in range(20 * (len(self.told) + 2)):
            if not self.up:
                self.receiver_comes_up()
            elif self.back:
                self.ack_arrives()
            elif self.wire:
                self.receive(acks=True)
            elif self.held or len(self.window):
                self._die(crashed=False)
            else:
                break
        assert not len(self.window)
        assert self.tokens == list(range(self.pushed))
        assert set(self.told) == set(self.stored) | set(self.buried)
        assert self.deadly <= set(self.buried)
        assert not self.window.isolating
        assert self.window.room() == (MESSAGES, BYTES)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def told(window: Window, *items: int) -> None:
    for item in items:
        window.push(body_of([item]), item)


def test_only_what_killed_is_buried_where_all_deaths_are_its_own() -> None:
    window = Window(10, 1000, keeps=True, split=split)
    window.push(body_of([1, 2, 3]), "a")
    window.push(body_of([4, 5]), "b")
    buried: list[bytes] = []
    handled: list[int] = []
    tokens: list[str] = []
    deaths = 0
    while len(window):
        window.connect()
        while entries := window.take():
            for entry in entries:
                if entry.alone:
                    window.begun(entry.number)
                if 5 in items_of(entry.body):
                    deaths += 1
                    loss = window.disconnect(crashed=True)
                    if loss.condemned:
                        buried.append(loss.condemned.body)
                        tokens += window.bury()
                    break
                handled += items_of(entry.body)
                tokens += window.ack(entry.number)
            if not window.connected:
                break
    assert buried == [b"5"]
    assert handled == [1, 2, 3, 4]
    assert tokens == ["a", "b"]
    assert deaths == DEATHS_BEFORE_ISOLATION + 1 + DEATHS_BEFORE_BURIAL
    assert not window.isolating


def isolated(*bodies: bytes) -> Window:
    """A window on which as many generations have died as it takes to isolate it."""
    window = Window(10, 1000, keeps=True, split=split)
    for body in bodies:
        window.push(body, body)
    for _ in range(DEATHS_BEFORE_ISOLATION):
        window.connect()
        window.take()
        window.disconnect(crashed=True)
    return window


def die_alone(window: Window, *, begun: bool) -> Entry | None:
    window.connect()
    entry = window.take()[0]
    if begun:
        window.begun(entry.number)
    return window.disconnect(crashed=True).condemned


def test_the_token_of_a_split_message_comes_with_its_last_part() -> None:
    window = isolated(b"1,2")
    assert die_alone(window, begun=True) is None
    window.connect()
    assert [entry.body for entry in window.take()] == [b"1"]
    assert window.ack(1) == []
    assert window.room()[0] == 9
    assert [entry.body for entry in window.take()] == [b"2"]
    assert window.ack(2) == [b"1,2"]


def test_a_death_before_this_delivery_was_begun_is_no_evidence_though_an_earlier_one_was() -> None:
    window = isolated(b"1")
    for _ in range(DEATHS_BEFORE_BURIAL - 1):
        assert die_alone(window, begun=True) is None
    assert die_alone(window, begun=False) is None
    condemned = die_alone(window, begun=True)
    assert condemned is not None
    assert condemned.body == b"1"


def test_deaths_before_a_message_was_begun_are_held_against_it_only_after_many() -> None:
    window = Window(10, 1000, keeps=True, split=split)
    told(window, 1)
    deaths = 0
    while True:
        window.connect()
        window.take()
        deaths += 1
        if window.disconnect(crashed=True).condemned is not None:
            break
    assert deaths == DEATHS_BEFORE_ISOLATION + UNPROVEN_BEFORE_BURIAL


def test_what_is_told_during_an_isolation_waits_for_its_end_and_then_flows_again() -> None:
    window = Window(10, 1000, keeps=True, split=split)
    told(window, 1, 2)
    for _ in range(2):
        window.connect()
        window.take()
        window.disconnect(crashed=True)
    assert window.isolating
    told(window, 3, 4)
    window.connect()
    assert [entry.body for entry in window.take()] == [b"1"]
    assert window.take() == []
    window.ack(1)
    assert [entry.body for entry in window.take()] == [b"2"]
    assert (window.isolating, window.ack(2), window.isolating) == (True, [2], False)
    assert [(entry.body, entry.alone) for entry in window.take()] == [(b"3", False), (b"4", False)]


def test_a_window_that_moved_or_a_stop_in_good_order_is_no_reason_to_isolate() -> None:
    window = Window(10, 1000, keeps=True, split=split)
    told(window, 1, 2, 3, 4)
    for _ in range(3):
        window.connect()
        window.take()
        window.ack(1)
        window.disconnect(crashed=True)
        assert not window.isolating
    for _ in range(3):
        window.connect()
        window.take()
        window.disconnect(crashed=False)
        assert not window.isolating


def test_an_offered_window_gives_up_what_was_sent_when_the_receiver_goes() -> None:
    window = Window(2, 1000, keeps=False, split=split)
    window.connect()
    told(window, 1, 2)
    window.take()
    assert [entry.token for entry in window.disconnect(crashed=True).dropped] == [1, 2]
    assert window.room() == (2, 1000)


def test_a_message_larger_than_the_window_is_refused_at_once() -> None:
    with pytest.raises(MessageTooBig):
        Window(2, 10, keeps=True, split=split).fits(11)


def test_an_ack_of_what_was_never_sent_is_a_fault() -> None:
    window = Window(2, 10, keeps=True, split=split)
    window.connect()
    with pytest.raises(InvariantViolated, match="ACKS_FOLLOW"):
        window.ack(1)


def test_a_gap_in_the_numbers_is_a_fault_and_a_ghost_is_ignored() -> None:
    lane = Incoming("sender")
    assert lane.accept(2, 1)
    with pytest.raises(InvariantViolated, match="NUMBERS_FOLLOW"):
        lane.accept(2, 3)
    assert not lane.accept(1, 2)
    lane.renew(3)
    assert not lane.accept(2, 2)
    assert not lane.ack(2, 1)
    assert lane.accept(3, 1)


def test_acks_are_cumulative_and_told_once() -> None:
    lane = Incoming("sender")
    for number in (1, 2, 3):
        lane.accept(1, number)
    assert lane.due() == 0
    assert lane.ack(1, 2)
    assert not lane.ack(1, 1)
    assert lane.held == 1
    assert lane.due() == 2
    assert lane.due() == 0
    with pytest.raises(ValueError, match="not delivered"):
        lane.ack(1, 4)
