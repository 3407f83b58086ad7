"""Event loops on virtual time, and actors' I/O threads that are no threads."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from engine.context import Context
from engine.control import FromChild, Progress
from engine.iothread import IoThread
from engine.metrics import MetricsSnapshot
from engine.simulated import Life
from engine.simulation import Simulation
from engine.topology import Topology

T = TypeVar("T")
_MOST_TURNS = 100_000


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never waits: it does what is due, and tells when there is more."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._virtual = now

    def time(self) -> float:
        return self._virtual()

    def turn(self) -> None:
        """Do all that is due at this moment."""
        for _ in range(_MOST_TURNS):
            at = self.next_at()
            if not self._ready and (at is None or at > self.time()):  # type: ignore[attr-defined]
                return
            self.call_soon(self.stop)
            self.run_forever()
        raise AssertionError("something in the loop never waits")

    def next_at(self) -> float | None:
        """When the next timer is due."""
        waiting = self._scheduled  # type: ignore[attr-defined]
        return waiting[0].when() if waiting else None


class SteppedIo(IoThread[T]):
    """What an actor takes for its I/O thread; its coroutines run in the loop of the hours."""

    shared: ClassVar[VirtualLoop]

    def __init__(self, context: Context, **bounds: Any) -> None:
        super().__init__(context, **bounds)
        self._loop.close()
        self._loop = self.shared

    def start(self) -> None:
        self._context.at_end(self.stop)
        self._context.watch(self._end, self.check)
        self._look()

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._context.unwatch(self.descriptor)
            self._context.unwatch(self._end)
            self._loop.call_soon_threadsafe(self._wind_up)

    def _wind_up(self) -> None:
        super()._wind_up()
        if self._error is not None and not self._ended:
            self._ended = True
            os.eventfd_write(self._end, 1)


class Hours(Simulation):
    """A simulation whose actors do things in an event loop as well.

    `figures` holds the last that each has told of its own.
    """

    def __init__(self, topology: Topology, *, seed: int) -> None:
        self.loop = VirtualLoop(self.time)
        SteppedIo.shared = self.loop
        self.figures: dict[str, MetricsSnapshot] = {}
        self._called_at = -1.0
        super().__init__(topology, seed=seed)

    def pass_by(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.time() + seconds
        self._at(end, lambda: None)
        self.run(lambda: self.time() >= end, seconds=seconds + 1.0)

    def heard(self, life: Life, message: FromChild) -> None:
        if isinstance(message, Progress) and message.metrics is not None:
            self.figures[life.name] = message.metrics
        super().heard(life, message)

    def end(self) -> None:
        """Have all actors stop in good order."""
        names = list(self.generations)
        for name in names:
            self.drain(name)
        lives = [self._lives[name] for name in names]
        self.run(lambda: all(life.ended or not life.started for life in lives))

    def close(self) -> None:
        super().close()
        self.loop.turn()
        self.loop.close()

    def _step(self) -> bool:
        self.loop.turn()
        return super()._step()

    def _jump(self) -> bool:
        at = self.loop.next_at()
        if at is not None and at != self._called_at:
            self._called_at = at
            self._at(at, lambda: None)
        return super()._jump()
