"""Messages that kill whoever reads them, and what the supervisor does not count."""

import signal
from pathlib import Path
from typing import Any

import msgspec

from engine.deadletter import FileDeadLetters
from tests.chaos.supervised import System, group, supervised

WORDS = ["a", "poison-1", "b", "poison-2", "c"]


def source(*words: str) -> dict[str, Any]:
    return group("source", {"name": "source", "settings": {"pokes": {"sink": words}}})


def poison(system: System) -> None:
    system.wait_ready("sink", "source")
    system.order("source", "poke")


def test_deaths_while_messages_are_sent_one_at_a_time_do_not_end_the_run(arena: Path) -> None:
    # Two deaths raise the suspicion, and count; those that name the culprits do not.
    groups = (group("sink", intensity=2), source(*WORDS))
    with supervised(arena, *groups, edges=[("source", "sink", "tell")]) as system:
        poison(system)
        system.wait_for_trace("poked sink c")
        system.wait_for_line("source sends to sink as usual again")
        deaths = len(system.lines("sink died:"))
        assert len(system.lines("of 2 restarts in 60 s")) == 2
        assert len(system.lines("as its messages are sent to it one at a time")) == deaths - 2 >= 2
        letters = FileDeadLetters.read(arena / "letters")
        words = [msgspec.msgpack.decode(letter.body)["words"] for letter in letters]
        assert words == [["poison-1"], ["poison-2"]]
        system.signal(signal.SIGTERM)
        outcome = system.outcome()
        assert outcome["code"] == 0
        assert outcome["restarts"] == {"sink": deaths}


def test_deaths_after_the_isolation_count_again(arena: Path) -> None:
    groups = (group("sink", intensity=2), source("a", "poison"))
    with supervised(arena, *groups, edges=[("source", "sink", "tell")]) as system:
        poison(system)
        system.wait_for_line("source sends to sink as usual again")
        # Those before it are the messages', and are taken back.
        died = len(system.lines("sink died:"))
        for more in range(3):
            system.wait_ready("sink", times=died + more + 1)
            system.order("sink", "die")
        outcome = system.outcome()
        assert outcome["code"] == 70
        assert "more than 2 restarts in 60 s in group sink" in outcome["message"]


def test_a_receiver_that_dies_of_everything_ends_the_run_after_all(arena: Path) -> None:
    words = [f"poison-{number}" for number in range(20)]
    groups = (group("sink", isolated_deaths=3), source(*words))
    with supervised(arena, *groups, edges=[("source", "sink", "tell")]) as system:
        poison(system)
        outcome = system.outcome()
        assert outcome["code"] == 70
        assert "more than 3 deaths on single messages in 3600 s" in outcome["message"]
