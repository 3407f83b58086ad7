"""Actors over real sockets between real processes, with the test as their supervisor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.actor import Actor, Delivery
from engine.address import Address
from engine.control import Drain, Fault, Isolating, Stop, Stopped
from engine.deadletter import FileDeadLetters
from engine.errors import MailboxFull
from engine.message import Message
from engine.topology import Edge, EdgeKind
from engine.window import DEATHS_BEFORE_BURIAL, DEATHS_BEFORE_ISOLATION
from tests.unit.engine_harness import Harness


class Batch(Message, frozen=True):
    items: tuple[int, ...]

    def split(self) -> Sequence[Message]:
        return [Batch((item,)) for item in self.items]


class Blob(Message, frozen=True):
    data: bytes


class Question(Message, frozen=True):
    text: str
    patience: float = 5.0


class Answer(Message, frozen=True):
    text: str


MESSAGES = (Batch, Question, Answer)


class Source(Actor):
    """Tells numbers as fast as credit allows; its settings are how many batches of how many."""

    def on_start(self) -> None:
        self.batches, self.size = self.settings
        self.next = 0
        self.done: list[int] = []
        self.context.on_ack("sink", self.acked)
        self.context.after(0, self.pour)

    def pour(self) -> None:
        while self.next < self.batches:
            first = self.next * self.size
            batch = Batch(tuple(range(first, first + self.size)))
            self.context.tell("sink", batch, token=self.next)
            self.next += 1

    def acked(self, tokens: list[Any]) -> None:
        self.done.extend(tokens)
        if len(self.done) == self.batches:
            self.context.finish({"tokens": self.done})


class Sink(Actor):
    """Appends what it gets to a file, one write per batch."""

    def on_start(self) -> None:
        self.file = os.open(self.settings, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def receive(
        self,
        message: Message,
        delivery: Delivery,
    ) -> Message | None:
        assert isinstance(message, Batch)
        os.write(self.file, "".join(f"{item}\n" for item in message.items).encode())
        return None


class Fragile(Sink):
    """Dies of the number 666."""

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        assert isinstance(message, Batch)
        if 666 in message.items:
            raise RuntimeError("cannot digest 666")
        return super().receive(message, delivery)


class Slow(Sink):
    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        self.context.wait(0.02)
        return super().receive(message, delivery)


TELL = Edge("source", "sink", EdgeKind.TELL, messages=8, bytes=100_000, patience=30)


def numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def longer_than(path: Path, lines: int) -> bool:
    return len(numbers(path)) > lines


def in_order_without_loss(got: list[int], total: int) -> bool:
    """Each first occurrence in order, and nothing missing; repeats are what replay makes."""
    return list(dict.fromkeys(got)) == list(range(total))


def test_everything_told_arrives_in_order_and_its_tokens_come_back_in_order(tmp_path: Path) -> None:
    with Harness([TELL], MESSAGES) as harness:
        harness.start("sink", Sink, str(tmp_path / "out"))
        harness.start("source", Source, (500, 3))
        harness.until(lambda: bool(harness.reports("source")))
        assert harness.reports("source") == [{"tokens": list(range(500))}]
        assert numbers(tmp_path / "out") == list(range(1500))


def test_a_killed_receiver_loses_nothing_and_its_successor_sees_the_same_order(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with Harness([TELL], MESSAGES) as harness:
        harness.start("sink", Slow, str(out))
        harness.start("source", Source, (120, 3))
        for kills in range(1, 4):
            harness.until(partial(longer_than, out, kills * 60))
            harness.kill("sink")
            harness.restart("sink")
        harness.until(lambda: bool(harness.reports("source")))
        assert harness.reports("source") == [{"tokens": list(range(120))}]
        assert in_order_without_loss(numbers(out), 360)
        assert harness.generations["sink"] == 4


class Armed(Sink):
    """Passes a crash point between effect and ack."""

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        super().receive(message, delivery)
        self.context.crash_point("sink.written")
        return None


def test_a_crash_between_effect_and_ack_repeats_one_message_and_no_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Harness([TELL], MESSAGES, crash_points="sink.written@sink:5") as harness:
        harness.start("sink", Armed, str(out))
        harness.start("source", Source, (20, 1))
        assert harness.bury("sink") == -9
        assert (harness.run_dir / "fired.sink.written@sink.5").exists()
        harness.restart("sink")
        harness.until(lambda: bool(harness.reports("source")))
        got = numbers(out)
        assert in_order_without_loss(got, 20)
        repeated = [n for n in range(20) if got.count(n) > 1]
        assert 4 in repeated
        assert len(repeated) <= TELL.messages


class Bulky(Actor):
    """Tells blobs of 100 kB, more of them than the window holds bytes."""

    def on_peer(
        self,
        peer: Address,
        generation: int,
        up: bool,
    ) -> None:
        if up:
            most = 0
            for number in range(40):
                blob = bytes([number]) * 100_000
                self.context.tell("weigher", Blob(blob))
                most = max(most, self.context.outstanding())
            self.context.finish({"most": most, "generation": generation})


class Weigher(Actor):
    """Takes its time, and checks that each blob came whole and in its turn."""

    def on_start(self) -> None:
        self.count = 0

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        assert isinstance(message, Blob)
        assert message.data == bytes([self.count]) * 100_000
        assert delivery.size > 100_000
        self.count += 1
        self.context.wait(0.002)
        if self.count == 40:
            self.context.finish({"count": self.count})
        return None


def test_a_window_bounds_the_bytes_of_large_messages_which_arrive_whole() -> None:
    edge = Edge("bulky", "weigher", EdgeKind.TELL, messages=64, bytes=350_000)
    with Harness([edge], (Blob,)) as harness:
        harness.start("weigher", Weigher)
        harness.start("bulky", Bulky)
        harness.until(lambda: bool(harness.reports("weigher")))
        harness.until(lambda: bool(harness.reports("bulky")))
        assert harness.reports("bulky") == [{"most": 3, "generation": 1}]


class Counting(Source):
    """Says how far it got when credit runs out."""

    def pour(self) -> None:
        try:
            while True:
                self.context.tell("sink", Batch((self.next,)), patience=0.05)
                self.next += 1
        except MailboxFull as error:
            back = error.returned == Batch((self.next,))
            room = self.context.room("sink")[0]
            self.context.finish({"sent": self.next, "room": room, "back": back})


class Stuck(Sink):
    """Holds what it gets and never acks."""

    acks_itself = True


def test_a_full_window_stops_the_sender_and_gives_the_message_back(tmp_path: Path) -> None:
    with Harness([TELL], MESSAGES) as harness:
        harness.start("sink", Stuck, str(tmp_path / "out"))
        harness.start("source", Counting, (0, 0))
        harness.until(lambda: bool(harness.reports("source")))
        assert harness.reports("source") == [{"sent": 8, "room": 0, "back": True}]


def test_a_tell_waits_for_a_receiver_that_was_never_announced(tmp_path: Path) -> None:
    with Harness([TELL], MESSAGES) as harness:
        harness.start("source", Counting, (0, 0))
        harness.until(lambda: bool(harness.reports("source")))
        assert harness.reports("source") == [{"sent": 0, "room": 0, "back": True}]


def test_an_exception_ends_the_process_and_its_reason_is_reported(tmp_path: Path) -> None:
    with Harness([TELL], MESSAGES) as harness:
        harness.start("sink", Fragile, str(tmp_path / "out"))
        harness.start("source", Source, (1, 667))
        harness.until(lambda: bool(harness.of("sink", Fault)))
        assert harness.bury("sink") == 1
        assert harness.of("sink", Fault) == [Fault("RuntimeError: cannot digest 666")]


def test_a_message_that_kills_two_generations_is_isolated_and_only_its_bad_part_is_buried(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with Harness([TELL], MESSAGES) as harness:
        harness.start("sink", Fragile, str(out))
        harness.start("source", Source, (100, 10))
        deaths = 0
        while not harness.reports("source"):
            harness.pump()
            if "sink" in harness.processes and not harness.processes["sink"].is_alive():
                deaths += 1
                assert deaths < 10
                harness.bury("sink")
                harness.restart("sink")
        got = list(dict.fromkeys(numbers(out)))
        assert got == [n for n in range(1000) if n != 666]
        letters = FileDeadLetters.read(harness.letters)
        assert len(letters) == 1
        assert (letters[0].sender, letters[0].receiver) == ("source", "sink")
        assert deaths == DEATHS_BEFORE_ISOLATION + 1 + DEATHS_BEFORE_BURIAL
        assert harness.of("source", Isolating) == [
            Isolating("sink", True),
            Isolating("sink", False),
        ]
        assert harness.reports("source") == [{"tokens": list(range(100))}]


class Watcher(Actor):
    """Copies from a pipe while allowed; twice."""

    def on_start(self) -> None:
        self.reader, writer = os.pipe()
        os.write(writer, b"abc")
        self.allowed = 2
        self.got = b""
        self.context.watch(self.reader, self.read, when=lambda: self.allowed > 0)
        self.context.after(0.2, self.tell)

    def read(self) -> None:
        self.allowed -= 1
        self.got += os.read(self.reader, 1)

    def tell(self) -> None:
        self.context.finish({"got": self.got.decode()})

    def on_drain(self) -> None:
        self.context.finish({"drained": True, "stopping": self.context.stopping})
        self.context.stop()

    def on_stop(self) -> None:
        self.context.finish({"stopped": True})


def test_a_descriptor_is_read_only_while_the_actor_wants_and_a_drain_ends_in_good_order() -> None:
    with Harness([Edge("watcher", "other", EdgeKind.TELL)], MESSAGES) as harness:
        harness.start("watcher", Watcher)
        harness.until(lambda: bool(harness.reports("watcher")))
        assert harness.reports("watcher") == [{"got": "ab"}]
        harness.hub.send("watcher", 1, Drain(5.0))
        assert harness.bury("watcher") == 0
        assert harness.reports("watcher")[1:] == [
            {"drained": True, "stopping": True},
            {"stopped": True},
        ]
        assert harness.said[-1] == ("watcher", 1, Stopped())


class Sleeper(Actor):
    def on_start(self) -> None:
        self.context.finish({"sleeps": True})
        self.context.wait(1000)


def test_a_stop_reaches_an_actor_that_waits_inside_its_start() -> None:
    with Harness([Edge("sleeper", "other", EdgeKind.TELL)], MESSAGES) as harness:
        harness.spawn("sleeper", Sleeper)
        harness.until(lambda: bool(harness.reports("sleeper")))
        harness.hub.send("sleeper", 1, Stop())
        assert harness.bury("sleeper") == 0
        assert harness.of("sleeper", Stopped) == [Stopped()]
