"""Asks, offers and idleness between real processes, with the test as their supervisor."""

from __future__ import annotations

from pathlib import Path

from engine.actor import Actor, Delivery
from engine.errors import ActorAway, AskFailed, AskTimeout
from engine.message import Message
from engine.topology import Edge, EdgeKind
from tests.unit.engine_harness import Harness
from tests.unit.test_engine_actors import (
    MESSAGES,
    Answer,
    Batch,
    Question,
    Stuck,
)


class Asker(Actor):
    """Asks what it is started with, and reports answers and errors."""

    def on_start(self) -> None:
        self.context.after(0.3, self.go)

    def go(self) -> None:
        answers = []
        for text, seconds in self.settings:
            try:
                reply = self.context.ask("oracle", Question(text), seconds)
                assert isinstance(reply, Answer)
                answers.append(reply.text)
            except (ActorAway, AskFailed, AskTimeout) as error:
                answers.append(type(error).__name__)
        self.context.finish({"answers": answers})


class Oracle(Actor):
    def on_start(self) -> None:
        self.seen: list[str] = []

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        assert isinstance(message, Question)
        self.seen.append(message.text)
        self.context.finish({"seen": self.seen})
        if message.text == "slow":
            self.context.wait(0.5)
        if message.text == "later":
            self.context.after(0.01, lambda: delivery.reply(Answer("later it is")))
            return None
        if message.text == "die":
            raise RuntimeError("asked to die")
        return Answer(message.text.upper())


ASK = Edge("asker", "oracle", EdgeKind.ASK)


def test_an_ask_is_answered_at_once_or_later_and_an_expired_one_is_skipped() -> None:
    with Harness([ASK], MESSAGES) as harness:
        harness.start("oracle", Oracle)
        asks = [("a", 5), ("later", 5), ("slow", 0.1), ("gone", 0.05), ("b", 5)]
        harness.start("asker", Asker, asks)
        harness.until(lambda: bool(harness.reports("asker")))
        assert harness.reports("asker")[0]["answers"] == [
            "A",
            "later it is",
            "AskTimeout",
            "AskTimeout",
            "B",
        ]
        assert harness.reports("oracle")[-1]["seen"] == ["a", "later", "slow", "b"]


def test_an_ask_fails_when_its_receiver_is_away_or_dies_over_it() -> None:
    with Harness([ASK], MESSAGES) as harness:
        harness.start("asker", Asker, [("a", 5)])
        harness.until(lambda: bool(harness.reports("asker")))
        assert harness.reports("asker")[0]["answers"] == ["ActorAway"]
        harness.kill("asker")
        harness.start("oracle", Oracle)
        harness.start("asker", Asker, [("die", 20)])
        assert harness.bury("oracle") == 1
        harness.until(lambda: len(harness.reports("asker")) == 2)
        assert harness.reports("asker")[1]["answers"] == ["AskFailed"]


class Offerer(Actor):
    def on_start(self) -> None:
        self.context.after(0.0, self.go)

    def go(self) -> None:
        before = self.context.offer("sink", Batch((0,)))
        while not self.context.room("sink")[0]:
            self.context.wait(0.01)
        taken = [self.context.offer("sink", Batch((n,))) for n in range(5)]
        self.context.finish({"before": before, "taken": taken})


def test_an_offer_never_waits_and_is_refused_without_peer_or_credit(tmp_path: Path) -> None:
    edge = Edge("offerer", "sink", EdgeKind.OFFER, messages=3)
    with Harness([edge], MESSAGES) as harness:
        harness.start("offerer", Offerer)
        harness.pump(0.2)
        harness.start("sink", Stuck, str(tmp_path / "out"))
        harness.until(lambda: bool(harness.reports("offerer")))
        assert harness.reports("offerer")[0] == {
            "before": False,
            "taken": [True, True, True, False, False],
        }


def test_an_idle_actor_reports_progress_all_the_time() -> None:
    from engine.control import Progress

    with Harness([ASK], MESSAGES) as harness:
        harness.start("oracle", Oracle)
        harness.until(lambda: len(harness.of("oracle", Progress)) >= 3)
