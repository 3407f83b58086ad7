"""Actors in processes of their own under a test that plays the supervisor."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.actor import Actor
from engine.address import Address
from engine.bootstrap import run_actor
from engine.child import Boot
from engine.control import (
    ControlMessage,
    Finish,
    PeerDown,
    PeerUp,
    Ready,
    control_endpoint,
    inbox_endpoint,
)
from engine.deadletter import DeadLetterSink, FileDeadLetters
from engine.message import Message
from engine.topology import Edge
from engine.transport import ControlHub

PATIENCE = 30.0


def child(boot: Boot) -> None:
    """Main function of a process of the harness."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    from dataclasses import replace

    raise SystemExit(run_actor(replace(boot, parent_sentinel=parent.sentinel)))


class LettersIn:
    """A picklable factory of dead-letter files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> DeadLetterSink:
        return FileDeadLetters(self.path)


class Harness:
    """Starts, kills and restarts actors, announces them to each other, and collects what they say.

    `said` holds everything that came over the control lane, as (name, generation, message).
    """

    def __init__(
        self, edges: Sequence[Edge], messages: Sequence[type[Message]], crash_points: str = ""
    ) -> None:
        self.crash_points = crash_points
        self._folder = tempfile.TemporaryDirectory(prefix="eng")
        self.run_dir = Path(self._folder.name)
        self.edges = tuple(edges)
        self.messages = tuple(messages)
        self.hub = ControlHub(control_endpoint(self.run_dir))
        self.said: list[tuple[Address, int, ControlMessage]] = []
        self.up: dict[Address, int] = {}
        self.generations: dict[Address, int] = {}
        self.processes: dict[Address, Any] = {}
        self.made: dict[Address, tuple[type[Actor], Any]] = {}
        self.letters = self.run_dir / "letters.jsonl"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            process.kill()
            process.join()
            process.close()
        self.hub.close()
        self._folder.cleanup()

    def start(self, name: Address, actor: type[Actor], settings: Any = None) -> None:
        """Start a generation of an actor and wait until it is ready and announced."""
        self.spawn(name, actor, settings)
        self.until(lambda: self.up.get(name) == self.generations[name])

    def spawn(self, name: Address, actor: type[Actor], settings: Any = None) -> None:
        """Start a generation of an actor."""
        generation = self.generations[name] = self.generations.get(name, 0) + 1
        self.made[name] = (actor, settings)
        boot = Boot(
            name=name,
            generation=generation,
            epoch=7,
            run_dir=str(self.run_dir),
            control_endpoint=control_endpoint(self.run_dir),
            actor=actor,
            settings=settings,
            edges=tuple(e for e in self.edges if name in (e.sender, e.receiver)),
            messages=self.messages,
            dead_letters=LettersIn(self.letters),
            crash_points=self.crash_points,
        )
        process = multiprocessing.get_context("spawn").Process(target=child, args=(boot,))
        process.start()
        self.processes[name] = process

    def restart(self, name: Address) -> None:
        """Start the next generation of an actor that has ended."""
        self.start(name, *self.made[name])

    def kill(self, name: Address) -> None:
        """End an actor as by SIGKILL, and tell its peers."""
        self.processes[name].kill()
        self.bury(name)

    def bury(self, name: Address, *, crashed: bool = True) -> int:
        """Wait for the end of an actor, tell its peers, and return its exit code."""
        process = self.processes.pop(name)
        process.join(PATIENCE)
        self.pump(0.0)
        code = process.exitcode
        assert code is not None, f"{name} does not end"
        process.close()
        generation = self.generations[name]
        if self.up.pop(name, 0):
            for peer in self.peers(name):
                if peer in self.up:
                    self.hub.send(peer, self.up[peer], PeerDown(name, generation, crashed))
        return int(code)

    def peers(self, name: Address) -> set[Address]:
        ends = {
            end
            for e in self.edges
            for end in (e.sender, e.receiver)
            if name in (e.sender, e.receiver)
        }
        return ends - {name}

    def pump(self, timeout: float = 0.02) -> None:
        """Read the control lane once; announce who has become ready."""
        messages, _ = self.hub.poll(timeout, ())
        for name, generation, message in messages:
            self.said.append((name, generation, message))
            if isinstance(message, Ready) and self.generations[name] == generation:
                self._announce(name, generation)

    def _announce(self, name: Address, generation: int) -> None:
        endpoint = inbox_endpoint(self.run_dir, name, generation)
        for peer in sorted(self.peers(name)):
            if peer in self.up:
                there = self.up[peer]
                self.hub.send(peer, there, PeerUp(name, generation, endpoint))
                self.hub.send(
                    name, generation, PeerUp(peer, there, inbox_endpoint(self.run_dir, peer, there))
                )
        self.up[name] = generation

    def until(self, ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Pump until something holds; fail where it does not in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"did not happen; said: {self.said[-20:]}"
            self.pump()

    def reports(self, name: Address) -> list[dict[str, Any]]:
        """What an actor has said by `finish` so far; the tests use it as their notebook."""
        return [m.report for n, _, m in self.said if n == name and isinstance(m, Finish)]

    def of(self, name: Address, kind: type[ControlMessage]) -> list[ControlMessage]:
        return [m for n, _, m in self.said if n == name and isinstance(m, kind)]
