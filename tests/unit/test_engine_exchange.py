"""The exchange against a carrier that only takes notes: what it does with whatever may come."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from engine.carrier import Arrivals
from engine.context import Context
from engine.control import FromChild, Isolating, PeerDown, PeerUp, Ready, ToChild
from engine.crashpoint import CrashPoints
from engine.deadletter import DeadLetter
from engine.delivery import Delivery
from engine.envelope import Envelope, Kind
from engine.errors import ActorAway, AskFailed, TransportFault, UnknownEdge
from engine.exchange import Exchange
from engine.invariants import InvariantViolated
from engine.message import Codec, Message
from engine.metrics import Metrics
from engine.topology import Edge, EdgeKind
from engine.window import DEATHS_BEFORE_BURIAL, DEATHS_BEFORE_ISOLATION


class Word(Message, frozen=True):
    text: str


CODEC = Codec((Word,))
EDGES = (
    Edge("me", "you", EdgeKind.TELL, messages=4),
    Edge("me", "you", EdgeKind.OFFER, messages=2),
    Edge("me", "you", EdgeKind.ASK, messages=2),
    Edge("you", "me", EdgeKind.TELL),
    Edge("you", "me", EdgeKind.ASK),
)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Notes:
    """A carrier that keeps what it is given, and brings what the test puts there.

    `answering` is called at each poll, so that a test can let things happen during a wait.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.opened: list[str] = []
        self.sent: list[tuple[Envelope, bytes]] = []
        self.answered: list[tuple[Envelope, bytes]] = []
        self.reported: list[FromChild] = []
        self.coming = Arrivals()
        self.in_the_socket: list[tuple[Envelope, bytes]] = []
        self.answering: Callable[[], None] = lambda: None

    def open(self, peer: str, endpoint: str) -> None:
        self.opened.append(f"{peer} {endpoint}")

    def shut(self, peer: str) -> list[tuple[Envelope, bytes]]:
        self.opened.append(f"not {peer}")
        found, self.in_the_socket = self.in_the_socket, []
        return found

    def send(self, peer: str, envelope: Envelope, body: bytes) -> None:
        assert envelope.to == peer
        self.sent.append((envelope, body))

    def answer(self, envelope: Envelope, body: bytes = b"") -> bool:
        self.answered.append((envelope, body))
        return True

    def report(self, message: FromChild) -> None:
        self.reported.append(message)

    def poll(self, timeout: float, *, data: bool, descriptors: Collection[int]) -> Arrivals:
        assert not descriptors
        self.answering()
        self.clock.time += timeout
        found, self.coming = self.coming, Arrivals()
        if not data:
            self.coming.data, found.data = found.data, []
        return found

    def close(self) -> None:
        pass


class Letters:
    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    def __call__(self) -> Letters:
        return self

    def put(self, letter: DeadLetter) -> None:
        self.letters.append(letter)

    def close(self) -> None:
        pass


class Recorder:
    """An actor without Pykka: it only notes."""

    acks_itself = False

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        self.seen.append(message)
        return Word("yes") if delivery.kind is Kind.ASK else None

    def stop(self) -> None:
        raise AssertionError("nobody asked")

    def on_peer(self, peer: str, generation: int, up: bool) -> None:
        self.seen.append((peer, generation, up))

    def on_drain(self) -> None:
        self.seen.append("drain")

    def on_status(self, status: bytes) -> None:
        self.seen.append(status)


class Me:
    """The actor `me` in its second generation, with all that surrounds it."""

    def __init__(self, letters: Letters | None = None) -> None:
        self.clock = Clock()
        self.carrier = Notes(self.clock)
        self.exchange = Exchange(
            "me", 2, EDGES, CODEC, self.carrier, self.clock, Metrics(), dead_letters=letters
        )
        self.context = Context(self.exchange, 0, CrashPoints("", "me", Path()))
        self.actor = Recorder()
        self.context.inbox.attach(self.actor)

    def hear(self, *messages: ToChild) -> None:
        self.carrier.coming.control.extend(messages)
        self.exchange.service(0.0, data=False)

    def up(self, generation: int) -> None:
        self.hear(PeerUp("you", generation, f"ipc://you.{generation}"))

    def down(self, generation: int, *, crashed: bool = True) -> None:
        self.hear(PeerDown("you", generation, crashed))

    def back(self, kind: Kind, lane: Kind, number: int, *, body: bytes = b"", of: int = 1) -> None:
        self.carrier.coming.returns.append((Envelope(kind, lane, "you", of, "me", 2, number), body))

    def turn(self, times: int = 1) -> None:
        """Run so many items of the inbox."""
        for _ in range(times):
            self.context.inbox.get().message()

    def texts(self, since: int = 0) -> list[tuple[int, str]]:
        found = []
        for envelope, body in self.carrier.sent[since:]:
            word = CODEC.decode(body)
            assert isinstance(word, Word)
            found.append((envelope.number, word.text))
        return found


def from_you(kind: Kind, number: int, text: str, **more: Any) -> tuple[Envelope, bytes]:
    generation = more.pop("generation", 1)
    to_generation = more.pop("to_generation", 2)
    envelope = Envelope(kind, kind, "you", generation, "me", to_generation, number, **more)
    return envelope, CODEC.encode(Word(text))


def test_what_is_unacked_is_numbered_anew_and_replayed_to_the_next_generation() -> None:
    me = Me()
    me.up(1)
    for text in ("a", "b", "c"):
        me.context.tell("you", Word(text))
    me.back(Kind.ACK, Kind.TELL, 1)
    me.exchange.service(0, data=False)
    me.down(1)
    me.up(2)
    assert me.texts() == [(1, "a"), (2, "b"), (3, "c"), (1, "b"), (2, "c")]
    assert me.carrier.opened == ["you ipc://you.1", "not you", "you ipc://you.2"]


def test_an_ack_that_lies_in_the_socket_when_its_sender_is_gone_still_counts() -> None:
    me = Me()
    me.up(1)
    me.context.tell("you", Word("a"))
    ack = Envelope(Kind.ACK, Kind.TELL, "you", 1, "me", 2, 1)
    me.carrier.in_the_socket.append((ack, b""))
    me.down(1)
    me.up(2)
    assert me.texts() == [(1, "a")]


def test_an_ack_of_a_ghost_frees_nothing() -> None:
    me = Me()
    me.up(1)
    me.context.tell("you", Word("a"))
    me.down(1)
    me.up(2)
    me.back(Kind.ACK, Kind.TELL, 1, of=1)
    me.exchange.service(0, data=False)
    assert me.context.outstanding("you") == 1


def test_tokens_of_acks_come_in_the_loop_and_never_inside_a_handler() -> None:
    me = Me()
    got: list[Any] = []
    me.context.on_ack("you", got.extend)
    me.up(1)
    for token in (1, None, 3):
        me.context.tell("you", Word("x"), token=token)
    me.back(Kind.ACK, Kind.TELL, 2)
    me.context.wait(0.1)
    me.back(Kind.ACK, Kind.TELL, 3)
    me.context.wait(0.1)
    assert got == []
    me.turn(2)
    assert got == [1, 3]


def test_an_offer_is_lost_with_its_receiver_and_its_credit_returns() -> None:
    me = Me()
    assert me.context.room("you") == (0, 0)
    assert not me.context.offer("you", Word("early"))
    me.up(1)
    assert me.context.offer("you", Word("a"))
    assert me.context.offer("you", Word("b"))
    assert not me.context.offer("you", Word("c"))
    me.down(1)
    me.up(2)
    assert me.context.offer("you", Word("d"))
    assert me.texts() == [(1, "a"), (2, "b"), (1, "d")]
    lost = me.context.metrics.snapshot().value("engine_offers_dropped_total", to="you")
    assert lost == 4


def test_an_ask_that_was_answered_before_its_receiver_died_is_answered() -> None:
    me = Me()
    me.up(1)

    def die_after_answering() -> None:
        if me.carrier.sent:
            reply = Envelope(Kind.REPLY, Kind.ASK, "you", 1, "me", 2, 1)
            me.carrier.in_the_socket = [(reply, CODEC.encode(Word("yes")))]
            me.carrier.coming.control.append(PeerDown("you", 1, crashed=True))
            me.carrier.answering = lambda: None

    me.carrier.answering = die_after_answering
    assert me.context.ask("you", Word("?"), 5.0) == Word("yes")
    with pytest.raises(ActorAway):
        me.context.ask("you", Word("?"), 5.0)


def test_an_ask_fails_at_once_when_its_receiver_dies() -> None:
    me = Me()
    me.up(1)
    me.carrier.coming.control.append(PeerDown("you", 1, crashed=True))
    with pytest.raises(AskFailed):
        me.context.ask("you", Word("?"), 5.0)
    assert me.clock.time < 5.0


def test_a_message_is_acked_when_its_handler_is_through_and_an_ask_answered() -> None:
    me = Me()
    me.up(1)
    me.carrier.coming.data = [from_you(Kind.TELL, 1, "a"), from_you(Kind.ASK, 1, "b", deadline=9.0)]
    me.turn(3)
    assert me.actor.seen == [("you", 1, True), Word("a"), Word("b")]
    me.exchange.service(0, data=False)
    answers = [(e.kind, e.lane, e.number, body) for e, body in me.carrier.answered]
    assert answers == [
        (Kind.REPLY, Kind.ASK, 1, CODEC.encode(Word("yes"))),
        (Kind.ACK, Kind.TELL, 1, b""),
    ]
    assert [m for m in me.carrier.reported if isinstance(m, Ready)] == [Ready(os.getpid())]


def test_an_expired_ask_is_skipped_and_gives_its_credit_back() -> None:
    me = Me()
    me.clock.time = 10.0
    me.carrier.coming.data = [
        from_you(Kind.ASK, 1, "late", deadline=9.0),
        from_you(Kind.TELL, 1, "a"),
    ]
    me.turn()
    assert me.actor.seen == [Word("a")]
    assert [(e.kind, e.number) for e, _ in me.carrier.answered] == [(Kind.ACK, 1)]


def test_messages_of_a_ghost_are_not_delivered_once_its_successor_is_known() -> None:
    me = Me()
    me.up(2)
    me.carrier.coming.data = [
        from_you(Kind.TELL, 1, "ghost", generation=1),
        from_you(Kind.TELL, 1, "a", generation=2),
    ]
    me.turn(2)
    assert me.actor.seen[1:] == [Word("a")]
    assert me.context.metrics.snapshot().value("engine_ghosts_total", sender="you") == 1


@pytest.mark.parametrize(
    ("arrival", "error"),
    [
        (from_you(Kind.TELL, 2, "a"), InvariantViolated),
        (from_you(Kind.TELL, 1, "a", to_generation=1), TransportFault),
        (from_you(Kind.OFFER, 1, "a"), UnknownEdge),
    ],
)
def test_what_cannot_be_is_a_fault(arrival: tuple[Envelope, bytes], error: type[Exception]) -> None:
    me = Me()
    me.carrier.coming.data = [arrival]
    with pytest.raises(error):
        me.turn()


def test_a_message_delivered_alone_is_announced_before_it_is_handled() -> None:
    me = Me()
    me.carrier.coming.data = [from_you(Kind.TELL, 1, "a", alone=True)]
    me.context.inbox.get()
    assert [(e.kind, e.number) for e, _ in me.carrier.answered] == [(Kind.BEGUN, 1)]
    assert me.actor.seen == []


def kill_over_one_message(me: Me) -> None:
    """Have so many generations die over the one message in the window that it is given up."""
    for generation in range(1, 1 + DEATHS_BEFORE_ISOLATION + DEATHS_BEFORE_BURIAL):
        me.up(generation)
        if generation == 1:
            me.context.tell("you", Word("poison"), token=7)
        me.back(Kind.BEGUN, Kind.TELL, 1, of=generation)
        me.exchange.service(0, data=False)
        me.down(generation)


def test_a_message_that_kills_is_stored_as_a_dead_letter_and_then_counts_as_acked() -> None:
    letters = Letters()
    me = Me(letters)
    got: list[Any] = []
    me.context.on_ack("you", got.extend)
    kill_over_one_message(me)
    assert [letter.body for letter in letters.letters] == [CODEC.encode(Word("poison"))]
    assert me.context.outstanding() == 0
    assert [m for m in me.carrier.reported if isinstance(m, Isolating)] == [
        Isolating("you", True),
        Isolating("you", False),
    ]
    me.turn(len(me.exchange.calls))
    assert got == [7]


def test_without_a_sink_a_message_that_kills_is_a_fault_of_its_sender() -> None:
    with pytest.raises(TransportFault, match="dead letters"):
        kill_over_one_message(Me())


def test_who_is_no_peer_cannot_be_spoken_to() -> None:
    me = Me()
    for speak in (
        lambda: me.context.tell("nobody", Word("a")),
        lambda: me.context.ref("nobody"),
        lambda: me.context.room("nobody"),
    ):
        with pytest.raises(UnknownEdge, match="nobody"):
            speak()
    assert me.context.ref("you").room() == (0, 0)
