"""The same actors in one process, on virtual time, in an order that a seed decides.

A simulation takes a topology, runs its actors over a simulated transport, restarts those that die,
and injects faults: kills at crash points or at random moments (between any two things that an actor
does to the outside), delays of seconds between edges, never a change of order within one. The same
seed gives the same run, to the last line of its trace.

It knows no services, no strategies but one_for_one and no intensity: it is for what actors say to
each other. An actor with threads of its own, or one that waits for real descriptors, cannot be
repeated exactly.
"""

from __future__ import annotations

import heapq
import random
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.address import Address
from engine.bootstrap import run_on
from engine.child import Boot, ChildSpec
from engine.control import (
    Drain,
    Fail,
    Fault,
    Finish,
    FromChild,
    Isolating,
    PeerDown,
    PeerUp,
    Ready,
    Stopped,
    ToChild,
)
from engine.crashpoint import CrashPoints
from engine.envelope import Envelope
from engine.errors import EngineError
from engine.restarts import Restart
from engine.simulated import Key, Life, SimulatedCarrier, VirtualClock
from engine.topology import Topology

_STEP_SECONDS = 1e-6
"""Virtual time that each step takes, so that an actor which never waits cannot stop the clock."""


class SimulationStuck(EngineError):
    """What the simulation was run for did not happen in its virtual time."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
        kills: how many actors are killed at random moments.
        chance: of each moment, until so many are killed.
        victims: who may be killed; anyone by default.
        delay: least and most virtual seconds that an envelope travels.
        restart: least and most virtual seconds from a death to the next generation.
    """

    kills: int = 0
    chance: float = 0.01
    victims: frozenset[Address] | None = None
    delay: tuple[float, float] = (0.0001, 0.02)
    restart: tuple[float, float] = (0.05, 0.5)


@dataclass(slots=True)
class _Lane:
    """What travels one way between two lives, in order."""

    arrives: float = 0.0
    flying: deque[list[Callable[[], None] | None]] = field(default_factory=deque)


class Simulation:
    """One run of a topology; a context manager, as it must end its threads.

    Args:
        topology: who runs and who may talk to whom.
        seed: decides everything that is left to chance.
        faults: what goes wrong at random.
        crash_points: what dies at a named place; see `engine.crashpoint`.

    Attributes:
        trace: one line for each thing that happened.
        killed: the generations that died by random faults.
        faults_seen: the lines of actors that ended by an exception, as (name, line).
        generations: the latest generation of each actor.
        report: what was given to `finish`, or None.
        failed: what was given to `fail`, or None.
    """

    def __init__(
        self, topology: Topology, *, seed: int, faults: Faults | None = None, crash_points: str = ""
    ) -> None:
        self._topology = topology
        self._faults = faults or Faults()
        self._chance = random.Random(seed)  # noqa: S311 - seeded, so that a run can be repeated
        self._crash_points = crash_points
        self._specs = {
            child.name: child for child in topology.children if isinstance(child, ChildSpec)
        }
        self._records = tempfile.TemporaryDirectory(prefix="sim")
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._lives: dict[Address, Life] = {}
        self._lanes: dict[tuple[Key, Key, str], _Lane] = {}
        self._strikes = self._faults.kills
        self._closing = False
        self.clock = VirtualClock(self.time)
        self.trace: list[str] = []
        self.killed: list[Key] = []
        self.faults_seen: list[tuple[Address, str]] = []
        self.generations: dict[Address, int] = {}
        self.report: dict[str, Any] | None = None
        self.failed: Fail | None = None
        for name in self._specs:
            self._start(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def crashes(self) -> list[str]:
        """The records of the crash points that have fired."""
        return sorted(path.name for path in Path(self._records.name).iterdir())

    def run(self, until: Callable[[], bool] | None = None, *, seconds: float = 3600.0) -> None:
        """Run until something holds; by default until an actor finishes or fails the job.

        Raises:
            SimulationStuck: it did not happen within so many virtual seconds.
        """
        done = until or (lambda: self.report is not None or self.failed is not None)
        deadline = self._now + seconds
        while not done():
            if self._now > deadline or not self._step():
                tail = "\n".join(self.trace[-30:])
                raise SimulationStuck(f"not done after {self._now:g} virtual seconds:\n{tail}")

    def kill(self, name: Address) -> None:
        """Kill an actor at its next step."""
        self._lives[name].killed = True

    def drain(self, name: Address, seconds: float = 20.0) -> None:
        """Ask an actor to stop in good order."""
        self._command(self._lives[name], Drain(seconds))

    def close(self) -> None:
        """End all actors."""
        self._closing = True
        for life in self._lives.values():
            life.killed = True
            while life.started and not life.ended:
                life.resume()
        self._records.cleanup()

    # What the lives call, while they hold the baton

    def time(self) -> float:
        return self._now

    def strike(self, life: Life) -> bool:
        victims = self._faults.victims
        if not self._strikes or self._closing or not life.ready:
            return False
        if victims is not None and life.name not in victims:
            return False
        if self._chance.random() >= self._faults.chance:
            return False
        self._strikes -= 1
        self.killed.append(life.key)
        return True

    def post(self, life: Life, to: Key, envelope: Envelope, body: bytes, *, back: bool) -> None:
        self._note(
            f"{life.name}.{life.generation} > {to[0]}.{to[1]}"
            f" {envelope.kind.name} {envelope.lane.name} {envelope.number}"
        )

        def arrive() -> None:
            there = self._lives.get(to[0])
            if there is None or there.ended or there.generation != to[1]:
                return
            if not back:
                there.data.append((envelope, body))
            elif there.open_to.get(life.name) == life.generation:
                there.returns.append((envelope, body))

        self._fly(life.key, to, "back" if back else "data", arrive)

    def heard(self, life: Life, message: FromChild) -> None:
        match message:
            case Ready():
                life.ready = True
                self._note(f"{life.name}.{life.generation} ready")
                self._announce(life)
            case Finish(report):
                self.report = report
            case Fail():
                self.failed = message
            case Isolating(peer, on):
                self._note(f"{life.name}.{life.generation} isolates {peer} {on}")
            case Stopped():
                life.orderly = True
            case Fault(reason):
                self.faults_seen.append((life.name, reason))

    # The scheduler

    def _step(self) -> bool:
        """Do one thing; False where nothing is left that could ever happen."""
        able = [life for life in self._lives.values() if life.runnable(self._now)]
        if not able:
            return self._jump()
        life = able[self._chance.randrange(len(able))]
        self._now += _STEP_SECONDS
        life.resume()
        if life.ended:
            self._buried(life)
        while self._events and self._events[0][0] <= self._now:
            heapq.heappop(self._events)[2]()
        return True

    def _jump(self) -> bool:
        """Go to the moment of the next event."""
        moments = [
            life.waiting.until for life in self._lives.values() if life.waiting and not life.ended
        ]
        if self._events:
            moments.append(self._events[0][0])
        if not moments:
            return False
        self._now = max(self._now, min(moments))
        while self._events and self._events[0][0] <= self._now:
            heapq.heappop(self._events)[2]()
        return True

    def _at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), action))

    def _fly(self, source: Key, to: Key, way: str, arrive: Callable[[], None]) -> None:
        """Have something arrive later, after all that was sent before it on the same way."""
        lane = self._lanes.setdefault((source, to, way), _Lane())
        lane.arrives = max(lane.arrives, self._now + self._chance.uniform(*self._faults.delay))
        flight: list[Callable[[], None] | None] = [arrive]
        lane.flying.append(flight)

        def land() -> None:
            if lane.flying and lane.flying[0] is flight:
                lane.flying.popleft()
            if flight[0] is not None:
                flight[0]()

        self._at(lane.arrives, land)

    def _lose(self, life: Life) -> None:
        """Of what a dead life had sent, some of the first arrive on each way, the rest does not."""
        for (source, _, _), lane in self._lanes.items():
            if source == life.key and lane.flying:
                kept = self._chance.randint(0, len(lane.flying))
                while len(lane.flying) > kept:
                    lane.flying.pop()[0] = None
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.flying}

    # The supervisor

    def _start(self, name: Address) -> None:
        spec = self._specs[name]
        generation = self.generations[name] = self.generations.get(name, 0) + 1
        self._note(f"{name}.{generation} starts")

        def main(life: Life) -> BaseException | None:
            boot = Boot(
                name=name,
                generation=generation,
                epoch=1,
                run_dir=self._records.name,
                control_endpoint="",
                actor=spec.actor,
                settings=spec.settings,
                edges=self._topology.edges_of(name),
                messages=self._topology.messages,
                dead_letters=self._topology.dead_letters,
            )
            points = CrashPoints(self._crash_points, name, Path(self._records.name), life.die)
            failure = run_on(SimulatedCarrier(life), boot, self.clock, points)
            if failure is None:
                life.orderly = True
            return failure

        self._lives[name] = Life(self, name, generation, main)

    def _announce(self, life: Life) -> None:
        for name in sorted(self._topology.peers_of(life.name)):
            peer = self._lives[name]
            if peer.ready and not peer.ended:
                for one, other in ((life, peer), (peer, life)):
                    endpoint = f"sim:{other.name}.{other.generation}"
                    self._command(one, PeerUp(other.name, other.generation, endpoint))

    def _command(self, life: Life, message: ToChild) -> None:
        self._fly(("", 0), life.key, "control", lambda: life.control.append(message))

    def _buried(self, life: Life) -> None:
        self._note(f"{life.name}.{life.generation} {'stops' if life.orderly else 'dies'}")
        if self._closing:
            return
        self._lose(life)
        if life.failure is not None and not life.killed:
            line = f"{type(life.failure).__name__}: {life.failure}"
            self.faults_seen.append((life.name, line))
        if life.ready:
            for name in sorted(self._topology.peers_of(life.name)):
                peer = self._lives[name]
                down = PeerDown(life.name, life.generation, not life.orderly)
                self._command(peer, down)
        restart = self._specs[life.name].restart
        if restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and not life.orderly):
            pause = self._chance.uniform(*self._faults.restart)
            self._at(self._now + pause, lambda: self._start(life.name))

    def _note(self, line: str) -> None:
        self.trace.append(f"{self._now:.6f} {line}")
