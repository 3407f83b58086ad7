"""The whole program as a process, as an operator starts it, for tests from end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).parent.parent
DEADLINE: Final = 150.0


class Program:
    """A running `run.py`. Its log is in `log_path`, one JSON object a line."""

    def __init__(self, child: subprocess.Popen[bytes], log_path: Path) -> None:
        self.child = child
        self.log_path = log_path

    def log(self) -> list[dict[str, Any]]:
        """Every complete line of the log so far."""
        lines = self.log_path.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, text: str) -> bool:
        """Whether some line of the log has this text in it."""
        return text in self.log_path.read_text()

    def wait(self, seconds: float = DEADLINE) -> int:
        """Wait for the end; returns the exit code. Fails with the log where it does not come."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {seconds} s:\n{self.tail()}") from None

    def report(self) -> dict[str, Any]:
        """Wait for the end in good order, and return the report on standard output."""
        code = self.wait()
        assert self.child.stdout is not None
        out = self.child.stdout.read()
        assert code == 0, f"exit code {code}:\n{self.tail()}"
        report: dict[str, Any] = json.loads(out)
        return report

    def tail(self, lines: int = 60) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_path.read_text().splitlines()[-lines:])

    def processes(self) -> dict[str, int]:
        """Every living process below the program: its name (an actor's is the actor's) and id."""
        found = {}
        try:
            below = psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return {}
        for process in below:
            # One that was killed keeps its name until its parent has buried it.
            with suppress(OSError, psutil.NoSuchProcess):
                name = Path(f"/proc/{process.pid}/comm").read_text().strip()
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[name] = process.pid
        return found

    def pid_of(self, name: str) -> int:
        """The process of an actor, once there is one."""
        found: dict[str, int] = {}

        def is_there() -> bool:
            found.update(self.processes())
            return name in found

        wait_until(is_there, f"a process called {name}", self)
        return found[name]

    def kill(self, name: str) -> int:
        """SIGKILL an actor's process; returns its id once it is dead, so that the next kill is of
        another one.
        """
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.processes().values(), f"the end of {name}", self)
        return pid


@contextmanager
def program(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    name: str = "run",
) -> Iterator[Program]:
    """Run `run.py` with these arguments; whatever is left of it afterwards is ended."""
    log_path = folder / f"{name}.log"
    variables = {
        **os.environ,
        "SKYSHARD_MONITOR__PORT": "0",
        "SKYSHARD_SOURCE__IDLE_SECONDS": "1",
        # What tests compare with takes records that break their lexicon, unless it says otherwise.
        "SKYSHARD_LEXICON__MODE": "off",
        # No test asks the network unless it brings one.
        "SKYSHARD_RESOLVER__ENABLED": "false",
        "SKYSHARD_FETCHER__ENABLED": "false",
        **(environment or {}),
    }
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), "--log-format", "json", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
            cwd=ROOT,
        )
    running = Program(child, log_path)
    try:
        yield running
    finally:
        below = running.processes()
        if child.poll() is None:
            child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
        left = [psutil.Process(pid) for pid in below.values() if psutil.pid_exists(pid)]
        _gone, alive = psutil.wait_procs(left, timeout=20)
        for process in alive:
            process.kill()


def wait_until(
    condition: Callable[[], bool], what: str, running: Program | None = None, seconds: float = 60.0
) -> None:
    """Wait for a condition; fails, with the program's log, when it does not come in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            log = "" if running is None else f":\n{running.tail()}"
            raise AssertionError(f"waited {seconds} s for {what}{log}")
        time.sleep(0.01)
