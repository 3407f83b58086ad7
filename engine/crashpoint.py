"""Named places at which a test can make a process die, and which cost nothing otherwise.

A crash point is armed by ``name@actor:nth``, several of them separated by commas: at the nth pass
of that name in a process of that actor, the process records the firing and dies as by SIGKILL.
The record is one file per firing; where it exists already the point does not fire again, so it
fires once over all generations, and a test can show that its fault has really happened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.address import Address

VARIABLE = "SKYSHARD_CRASH_POINTS"
"""Environment variable that holds the specification."""

DIRECTORY_VARIABLE = "SKYSHARD_CRASH_DIR"
"""Environment variable that holds the folder of the records; the run directory without it."""

_SIGKILL = 9


class Killed(BaseException):
    """Stands for the death of a process where, in a simulation, there is no process to kill."""


@dataclass(frozen=True)
class Armed:
    """One armed crash point: at the ``nth`` pass (from 1) of ``name`` in ``actor``'s process."""

    name: str
    actor: Address
    nth: int

    @property
    def record(self) -> str:
        """The name of the file that is written when it fires."""
        return f"fired.{self.name}@{self.actor}.{self.nth}"


def parse(spec: str) -> tuple[Armed, ...]:
    """Read a specification such as ``shard.before_commit@shard-0:3,ingest.saved@ingest:1``.

    Raises:
        ValueError: an item is not of that form.
    """
    found = []
    for item in filter(None, (part.strip() for part in spec.split(","))):
        name, at, rest = item.partition("@")
        actor, colon, nth = rest.rpartition(":")
        if not (name and at and actor and colon and nth.isdecimal() and int(nth) > 0):
            raise ValueError(f"crash point {item!r} is not of the form name@actor:nth")
        if "/" in name or "/" in actor:
            raise ValueError(f"crash point {item!r} has a slash, which its record cannot have")
        found.append(Armed(name, actor, int(nth)))
    return tuple(found)


def directory(run_dir: str | Path, environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder in which firings are recorded."""
    variables = os.environ if environ is None else environ
    return Path(variables.get(DIRECTORY_VARIABLE) or run_dir)


def die() -> None:
    """End this process at once, as a crash of the machine would."""
    os.kill(os.getpid(), _SIGKILL)


class CrashPoints:
    """The crash points of one actor's process.

    Args:
        spec: what is armed, for all actors; empty for nothing.
        actor: whose process this is.
        records: the folder in which firings are recorded.
        kill: what ends the process; a simulation brings its own.
    """

    def __init__(
        self, spec: str, actor: Address, records: Path, kill: Callable[[], None] = die
    ) -> None:
        self._armed: dict[str, list[Armed]] = {}
        for point in parse(spec):
            if point.actor == actor:
                self._armed.setdefault(point.name, []).append(point)
        self._passes: dict[str, int] = {}
        self._records = records
        self._kill = kill

    def reach(self, name: str) -> None:
        """Pass a crash point; does not return where it is armed for this pass."""
        if not self._armed:
            return
        armed = self._armed.get(name)
        if armed is None:
            return
        passes = self._passes.get(name, 0) + 1
        self._passes[name] = passes
        for point in armed:
            if point.nth == passes and self._record(point):
                self._kill()

    def _record(self, point: Armed) -> bool:
        try:
            (self._records / point.record).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True
