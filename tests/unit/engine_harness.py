"""Actors in processes of their own under a test that plays the supervisor."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_uint64
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from unittest import mock

from engine import bootstrap
from engine.actor import Actor
from engine.address import Address
from engine.child import Boot
from engine.control import (
    ControlMessage,
    Finish,
    FromChild,
    PeerDown,
    PeerUp,
    Progress,
    Ready,
    control_endpoint,
    inbox_endpoint,
)
from engine.deadletter import DeadLetterSink, FileDeadLetters
from engine.message import Message
from engine.metrics import MetricsSnapshot
from engine.topology import Edge
from engine.transport import ControlHub, SocketCarrier
from tests import forking

Said = TypeVar("Said", bound=ControlMessage)

PATIENCE = 120.0
"""Seconds after which a test fails that waits for something; a machine may be busy with others."""


class CountingCarrier(SocketCarrier):
    """Counts, in memory that the test reads too, what its actor says to the supervisor.

    It counts before it sends. So whoever sees what an actor did, in a database for instance, knows
    how much it had said by then, and waits until all of that has come.
    """

    def __init__(self, spoken: c_uint64, *of_socket_carrier: Any) -> None:
        super().__init__(*of_socket_carrier)
        self._spoken = spoken

    def report(self, message: FromChild) -> None:
        self._spoken.value += 1
        super().report(message)


def child(boot: Boot, spoken: c_uint64) -> None:
    """Main function of a process of the harness."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    with mock.patch.object(bootstrap, "SocketCarrier", partial(CountingCarrier, spoken)):
        raise SystemExit(bootstrap.run_actor(replace(boot, parent_sentinel=parent.sentinel)))


@dataclass
class Voice:
    """How many messages a generation of an actor has sent, how many of them were read, and which of
    these was the last with figures."""

    generation: int
    spoken: c_uint64
    heard: int = 0
    measured: int = 0


class LettersIn:
    """A picklable factory of dead-letter files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> DeadLetterSink:
        return FileDeadLetters(self.path)


class Harness:
    """Starts, kills and restarts actors, announces them to each other, and collects what they say.

    `said` holds all that came over the control lane, as (name, generation, message). `until`,
    `reports`, `of` and `bury` read all that the actors have said by then (but for those that were
    killed): a test that sees what an actor did, wherever that is, also has what it said before.
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
        self.voices: dict[Address, Voice] = {}
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
        self.processes.clear()
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
        voice = self.voices[name] = Voice(generation, forking.CONTEXT.RawValue(c_uint64))
        process = forking.process(child, boot, voice.spoken)
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
        code = process.exitcode
        assert code is not None, f"{name} does not end"
        self.pump(0.0)
        self._hear({name: process})
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
            voice = self.voices[name]
            if voice.generation == generation:
                voice.heard += 1
                if isinstance(message, Progress) and message.metrics is not None:
                    voice.measured = voice.heard
                if isinstance(message, Ready):
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
        """Pump until something holds, and all is read that was said by then; fail where it does
        not hold in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"did not happen; said: {self._last_words()}"
            self.pump()
        self.hear()

    def _last_words(self) -> list[Any]:
        return [each for each in self.said if not isinstance(each[2], Progress)][-20:]

    def hear(self) -> None:
        """Read all that the actors have said by now."""
        self._hear(self.processes)

    def _hear(self, processes: Mapping[Address, Any]) -> None:
        due = {name: self.voices[name].spoken.value for name in processes}
        deadline = time.monotonic() + PATIENCE
        while late := {name for name, count in due.items() if self.voices[name].heard < count}:
            assert time.monotonic() < deadline, f"what these said does not come: {late}"
            self.pump()
            # What one that was killed said last may have died with it.
            for name in late:
                if (processes[name].exitcode or 0) < 0:
                    del due[name]

    def reports(self, name: Address) -> list[dict[str, Any]]:
        """What an actor has said by `finish` so far; the tests use it as their notebook."""
        return [message.report for message in self.of(name, Finish)]

    def of(self, name: Address, kind: type[Said]) -> list[Said]:
        """What an actor has said of one kind so far."""
        self.hear()
        return [m for n, _, m in self.said if n == name and isinstance(m, kind)]

    def metrics(self, name: Address) -> MetricsSnapshot:
        """The figures that an actor told last, which may be of a second ago: to wait for some."""
        for said in reversed(self.of(name, Progress)):
            if said.metrics is not None:
                return said.metrics
        return MetricsSnapshot()

    def metrics_now(self, name: Address) -> MetricsSnapshot:
        """The figures of an actor after this call."""
        voice = self.voices[name]
        # Those in the next message may have been taken before.
        known = voice.spoken.value + 1
        self.until(lambda: voice.measured > known)
        return self.metrics(name)
