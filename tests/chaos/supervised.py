"""What the tests hold in their hands: a running system, its log, its processes and its traces."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

import psutil

DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for a condition with a deadline; `what` says at its end what was seen instead."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(what())
        time.sleep(POLL_SECONDS)


class System:
    """The processes of `tests.chaos.system` in one arena."""

    def __init__(self, arena: Path, topology: dict[str, Any]) -> None:
        self.arena = arena
        self._log = arena / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.system", str(arena), json.dumps(topology)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._seen: set[int] = set()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The supervisor's log lines so far."""
        found = []
        for line in self._log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def lines(self, text: str) -> list[dict[str, Any]]:
        return [event for event in self.events if text in event["event"]]

    def wait_for_line(self, text: str, times: int = 1) -> dict[str, Any]:
        """Wait until so many lines of the log have this text. Returns the last of them."""
        wait_until(
            lambda: len(self.lines(text)) >= times or self.process.poll() is not None,
            lambda: f"{times} times {text!r} not in the log:\n{self._log.read_text()}",
        )
        assert len(self.lines(text)) >= times, self._log.read_text()
        return self.lines(text)[-1]

    @property
    def traces(self) -> list[str]:
        path = self.arena / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_trace(self, line: str, times: int = 1) -> None:
        wait_until(
            lambda: self.traces.count(line) >= times,
            lambda: f"{times} times {line!r} not in {self.traces}\n{self._log.read_text()}",
        )

    def wait_ready(self, *names: str, times: int = 1) -> dict[str, int]:
        """Wait until these children were ready so many times. Returns their process ids."""
        return {name: self.wait_for_line(f"{name} is ready", times)["pid"] for name in names}

    def pids(self) -> set[int]:
        """The processes of the system at the moment, the supervisor's included."""
        try:
            supervisor = psutil.Process(self.process.pid)
            found = {self.process.pid, *(p.pid for p in supervisor.children(recursive=True))}
        except psutil.NoSuchProcess:
            found = set()
        self._seen |= found
        return found

    def order(self, name: str, order: str) -> None:
        (self.arena / f"{name}.{order}").touch()

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    def signal_from_terminal(self, number: Signals) -> None:
        """As the terminal does it: to the whole group of processes."""
        os.killpg(self.process.pid, number)

    def outcome(self) -> dict[str, Any]:
        """Wait for the end. Returns the outcome, with the exit code of the process as "code"."""
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert output, self._log.read_text()
        return {**json.loads(output), "code": self.process.returncode}

    def wait_all_gone(self) -> None:
        """Wait until none of the processes seen by `pids` is left."""

        def left() -> list[str]:
            return [f"{pid} {name}" for pid in self._seen if (name := _name_of(pid)) is not None]

        wait_until(lambda: not left(), lambda: f"still there: {left()}\n{self._log.read_text()}")

    def end(self) -> None:
        for pid in self.pids() | self._seen:
            if _name_of(pid) is not None and _is_of(pid, self.arena):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
        self.process.kill()
        self.process.communicate()


def _name_of(pid: int) -> str | None:
    """The name of a running process; None for one that is gone, or a zombie of the test's own."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return None


def _is_of(pid: int, arena: Path) -> bool:
    """Whether it belongs to this arena, and is not one that has been given the number since."""
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return str(arena) in command or "multiprocessing" in command


@contextlib.contextmanager
def supervised(arena: Path, *groups: dict[str, Any], **options: Any) -> Iterator[System]:
    """A running system of these groups, gone at the end of the `with`."""
    system = System(arena, {"groups": groups, **options})
    try:
        yield system
    finally:
        system.end()


def group(name: str, *children: str | dict[str, Any], **options: Any) -> dict[str, Any]:
    """A group of actors (by name, or with options); of one called like it if none are named."""
    named = [{"name": child} if isinstance(child, str) else child for child in children or (name,)]
    return {"name": name, "children": named, **options}


def soldier(name: str, *traits: str, **options: Any) -> dict[str, Any]:
    """An actor with some of the traits that `tests.chaos.system.Soldier` knows."""
    return {"name": name, "settings": dict.fromkeys(traits, True), **options}


def service(name: str, **options: Any) -> dict[str, Any]:
    return group(name, {"name": name, "service": True}, **options)
