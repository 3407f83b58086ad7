"""One generation of an actor in a simulation: its thread, its baton, and its carrier.

Each life runs the very code of a real process in a thread of its own, but only while it holds the
baton: it takes it back when it is resumed and gives it away when it waits. So at any moment one
thread runs, the order is the scheduler's choice, and a handler may wait as it likes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from select import select
from typing import Protocol

from engine.address import Address
from engine.carrier import Arrivals
from engine.control import FromChild, ToChild
from engine.crashpoint import Killed
from engine.envelope import Envelope

Key = tuple[Address, int]


class World(Protocol):
    """What a life needs of the simulation around it."""

    def post(self, life: Life, to: Key, envelope: Envelope, body: bytes, *, back: bool) -> None:
        """Have an envelope travel to another life."""

    def heard(self, life: Life, message: FromChild) -> None:
        """Take a report to the supervisor."""

    def strike(self, life: Life) -> bool:
        """Say whether this life is to be killed here and now."""

    def time(self) -> float:
        """Return the virtual monotonic second."""


class VirtualClock:
    """The clock of a simulation: it jumps to the next event when nothing is left to do."""

    EPOCH = 1_700_000_000.0

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time

    def now(self) -> float:
        return self.EPOCH + self._time()

    def monotonic(self) -> float:
        return self._time()


@dataclass(slots=True)
class Waiting:
    """What a life that has given the baton away waits for."""

    until: float
    data: bool
    descriptors: frozenset[int]


@dataclass(eq=False)
class Life:
    """One generation of one actor.

    Attributes:
        waiting: what it waits for; None before its first wait, while it runs, and at its end.
        ended: its thread is over.
        killed: it was struck: everything it does from then on fails.
        failure: what its loop ended by, if not in good order.
        orderly: it said that it stopped.
    """

    world: World
    name: Address
    generation: int
    main: Callable[[Life], BaseException | None]
    waiting: Waiting | None = None
    started: bool = False
    ended: bool = False
    killed: bool = False
    ready: bool = False
    orderly: bool = False
    failure: BaseException | None = None
    control: deque[ToChild] = field(default_factory=deque)
    returns: deque[tuple[Envelope, bytes]] = field(default_factory=deque)
    data: deque[tuple[Envelope, bytes]] = field(default_factory=deque)
    open_to: dict[Address, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=f"{self.name}.{self.generation}")

    @property
    def key(self) -> Key:
        return self.name, self.generation

    def runnable(self, now: float) -> bool:
        """Whether it can go on at this moment."""
        waiting = self.waiting
        if self.ended:
            return False
        if waiting is None:
            return True
        if self.killed or self.control or self.returns or (waiting.data and self.data):
            return True
        return waiting.until <= now or bool(self._readable(waiting.descriptors))

    def resume(self) -> None:
        """Let it run until it waits or ends; called by the scheduler, which sleeps meanwhile."""
        self.waiting = None
        if not self.started:
            self.started = True
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        if self.ended:
            self._thread.join()

    def wait(self, timeout: float, *, data: bool, descriptors: Collection[int]) -> Arrivals:
        """Give the baton away until something arrives; called by the life's own thread."""
        self.suffer()
        self.waiting = Waiting(self.world.time() + timeout, data, frozenset(descriptors))
        self._back.release()
        self._go.acquire()
        self.suffer()
        arrivals = Arrivals(list(self.control), list(self.returns))
        arrivals.readable = self._readable(frozenset(descriptors))
        self.control.clear()
        self.returns.clear()
        if data:
            arrivals.data = list(self.data)
            self.data.clear()
        return arrivals

    def suffer(self) -> None:
        """End here if the scheduler strikes, or has struck before."""
        if self.killed or self.world.strike(self):
            self.killed = True
            raise Killed(self.name)

    def die(self) -> None:
        """Kill this life from inside, at a crash point."""
        self.killed = True
        raise Killed(self.name)

    @staticmethod
    def _readable(descriptors: frozenset[int]) -> set[int]:
        return set(select(sorted(descriptors), [], [], 0)[0]) if descriptors else set()

    def _run(self) -> None:
        try:
            self.failure = self.main(self)
        except Killed:
            self.killed = True
        except BaseException as error:  # noqa: BLE001 - told by the scheduler's own thread
            self.failure = error
        finally:
            self.ended = True
            self._back.release()


class SimulatedCarrier:
    """The carrier of one life."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def open(self, peer: Address, endpoint: str) -> None:
        self._life.suffer()
        self._life.open_to[peer] = int(endpoint.rpartition(".")[2])

    def shut(self, peer: Address) -> list[tuple[Envelope, bytes]]:
        self._life.suffer()
        if self._life.open_to.pop(peer, None) is None:
            return []
        mine = [item for item in self._life.returns if item[0].sender == peer]
        others = [item for item in self._life.returns if item[0].sender != peer]
        self._life.returns = deque(others)
        return mine

    def send(self, peer: Address, envelope: Envelope, body: bytes) -> None:
        self._life.suffer()
        to = (peer, self._life.open_to[peer])
        self._life.world.post(self._life, to, envelope, body, back=False)

    def answer(self, envelope: Envelope, body: bytes = b"") -> bool:
        self._life.suffer()
        to = (envelope.to, envelope.to_generation)
        self._life.world.post(self._life, to, envelope, body, back=True)
        return True

    def report(self, message: FromChild) -> None:
        self._life.suffer()
        self._life.world.heard(self._life, message)

    def poll(self, timeout: float, *, data: bool, descriptors: Collection[int]) -> Arrivals:
        return self._life.wait(timeout, data=data, descriptors=descriptors)

    def close(self) -> None:
        """Nothing is open that outlives the life."""
