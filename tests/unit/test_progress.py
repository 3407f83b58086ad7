"""The live view shows what is true at its moment, and nothing that is over or unknown."""

import io

import pytest
from rich.console import Console

from actors.progress import draw
from actors.vitals import vitals
from engine.metrics import Metrics
from engine.status import ChildStatus, Status


def child(
    name: str,
    *,
    state: str = "ready",
    service: bool = False,
    pid: int | None = 7,
    note: str = "",
    last_exit: str = "",
) -> ChildStatus:
    return ChildStatus(
        name=name,
        group=name,
        service=service,
        state=state,
        generation=1,
        pid=pid,
        up_seconds=1.0,
        silent_seconds=0.1,
        restarts=0,
        restart_in_seconds=None,
        last_exit=last_exit,
        handled=12,
        backlog=0,
        note=note,
        waiting_ms={},
        isolates=(),
        memory_bytes=88_000_000,
        metrics=Metrics().snapshot(),
    )


def view(*children: ChildStatus, phase: str = "running") -> str:
    status = Status(1.0, 12.0, phase, 1, "", children)
    screen = io.StringIO()
    Console(file=screen, width=120).print(draw(status, vitals(status), 0.0))
    return screen.getvalue()


def line(text: str, name: str) -> list[str]:
    found = [words for words in map(str.split, text.splitlines()) if words and words[0] == name]
    assert len(found) == 1, text
    return found[0]


@pytest.mark.parametrize("phase", ["starting", "running", "stopping"])
def test_the_time_since_the_start_is_not_told_as_that_of_the_phase(phase: str) -> None:
    assert f"skyshard {phase}  up 12.0s " in view(child("ingest"), phase=phase)


@pytest.mark.parametrize(
    ("state", "remark"),
    [
        ("starting", ["a-note"]),
        ("ready", ["a-note"]),
        ("ending", []),
        ("waiting", ["an-exit"]),
        ("done", ["an-exit"]),
    ],
)
def test_a_note_is_shown_while_it_holds(state: str, remark: list[str]) -> None:
    text = view(child("ingest", state=state, note="a-note", last_exit="an-exit"))
    assert line(text, "ingest")[1:] == [state, "0", "12", "88", "MB", *remark]


def test_of_a_service_nothing_is_shown_that_is_not_known() -> None:
    text = view(child("postgres", service=True, note="its start"))
    assert line(text, "postgres") == ["postgres", "ready", "0"]


def test_an_actor_without_a_process_has_no_memory() -> None:
    text = view(child("ingest", state="waiting", pid=None, last_exit="an-exit"))
    assert line(text, "ingest") == ["ingest", "waiting", "0", "12", "an-exit"]
