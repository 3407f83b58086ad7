"""One asyncio loop in one I/O thread, for actors that must do several things at a time.

The thread and the actor share one queue, bounded in items and in bytes, and descriptors that wake
the actor. A full queue makes the thread's coroutines wait, and so whatever they read from; it never
grows past its bound. An unexpected end of the thread, of anything that runs in it, or a loop that
does not turn, is a fault of the actor.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

from engine.context import Context
from engine.errors import IoThreadDied, IoThreadStalled
from engine.invariants import queue_bounded

T = TypeVar("T")
Deliver: TypeAlias = Callable[[T], Awaitable[None]]
Work: TypeAlias = Callable[[Deliver[T]], Coroutine[Any, Any, None]]

_LOOKS_TO_STALL = 4
_JOIN_SECONDS = 5.0


def bytes_of(item: object) -> int:
    """Return what an item weighs in the queue: its length where it is bytes or text, else 0."""
    return len(item) if isinstance(item, bytes | str) else 0


class IoTask:
    """A coroutine under way in the I/O thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End it; what it delivers while it ends still arrives. Harmless once it has ended."""
        _in_loop(self._loop, self._cancel)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start it; for the I/O thread alone."""
        self._task = self._loop.create_task(coroutine)
        if self._cancelled:
            self._task.cancel()
        return self._task


class IoThread(Generic[T]):
    """The I/O thread of an actor, from the actor's side.

    The actor submits coroutine functions; they deliver items, which the actor takes when its
    descriptor is readable.

    Args:
        context: the actor's.
        items: bound of the queue in items.
        size: bound of the queue in bytes. An item that is larger alone may pass an empty queue.
        size_of: what an item weighs.
        stall_seconds: how long the loop may stand still, say in a blocking call, before that is a
            fault.
    """

    def __init__(
        self,
        context: Context,
        *,
        items: int,
        size: int,
        size_of: Callable[[T], int] = bytes_of,
        stall_seconds: float = 30.0,
    ) -> None:
        if items < 1 or size < 1:
            raise ValueError(f"a queue of {items} items and {size} bytes holds nothing")
        self._context = context
        self._limit_items = items
        self._limit_bytes = size
        self._size_of = size_of
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._queue: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._full = False
        self._waited = 0.0
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._error: BaseException | None = None
        self._ended = False
        self._closing = False
        self._stopped = False
        self._loop = asyncio.new_event_loop()
        self._space = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = self._turns_seen = self._looks = 0
        self._thread = threading.Thread(target=self._run, name=f"{context.name}-io", daemon=True)

    def start(self) -> None:
        """Start the thread and watch over it; the engine stops it with the actor at the latest."""
        self._context.at_end(self.stop)
        self._context.watch(self._end, self.check)
        self._thread.start()
        self._look()

    @property
    def queued(self) -> tuple[int, int]:
        """Items and bytes in the queue."""
        return len(self._queue), self._bytes

    @property
    def waited(self) -> float:
        """Seconds that coroutines have waited for space in the queue, added up."""
        return self._waited

    def submit(self, work: Work[T]) -> IoTask:
        """Run a coroutine function in the thread, and give it what delivers into the queue.

        It may end, or be cancelled; if it raises anything, that ends the actor.
        """
        task = IoTask(self._loop)
        _in_loop(self._loop, lambda: self._adopt(task.begin(work(self._deliver))))
        return task

    def take(self, limit: int) -> list[T]:
        """Return up to so many items. The descriptor stays readable while more are there."""
        with self._lock:
            taken: list[T] = []
            while self._queue and len(taken) < limit:
                item, size = self._queue.popleft()
                self._bytes -= size
                taken.append(item)
            if not self._queue and taken:
                os.eventfd_read(self.descriptor)
            full, self._full = self._full, self._full and not taken
        if full and taken:
            _in_loop(self._loop, self._space.set)
        return taken

    def check(self) -> None:
        """Raise if the thread has ended, or something in it failed.

        Raises:
            IoThreadDied: with what ended it as its cause.
        """
        if self._ended and not self._stopped:
            raise IoThreadDied(
                f"the I/O thread of {self._context.name} died of {self._error!r}"
            ) from self._error

    def stop(self) -> None:
        """Cancel all that runs and wait for the end; what is in the queue is thrown away."""
        if self._stopped:
            return
        self._stopped = True
        self._context.unwatch(self.descriptor)
        self._context.unwatch(self._end)
        if self._thread.ident is None:
            self._loop.close()
        else:
            _in_loop(self._loop, self._wind_up)
            self._thread.join(_JOIN_SECONDS)
            if self._thread.is_alive():
                # It is stuck in a blocking call, and would write to what is closed here.
                return
        os.close(self.descriptor)
        os.close(self._end)

    async def _deliver(self, item: T) -> None:
        size = self._size_of(item)
        while not self._put(item, size):
            began = self._loop.time()
            await self._space.wait()
            self._waited += self._loop.time() - began

    def _put(self, item: T, size: int) -> bool:
        if self._closing:
            return True
        with self._lock:
            queue = self._queue
            if queue and (
                len(queue) >= self._limit_items or self._bytes + size > self._limit_bytes
            ):
                self._full = True
                self._space.clear()
                return False
            queue.append((item, size))
            self._bytes += size
            if len(queue) == 1:
                os.eventfd_write(self.descriptor, 1)
            else:
                limits = self._limit_items, self._limit_bytes
                queue_bounded(self._thread.name, len(queue), self._bytes, *limits)
        return True

    def _look(self) -> None:
        """See whether the loop has turned since the last look, a quarter of the limit ago."""
        if self._stopped:
            return
        self.check()
        self._looks = 0 if self._turns != self._turns_seen else self._looks + 1
        self._turns_seen = self._turns
        if self._looks > _LOOKS_TO_STALL:
            raise IoThreadStalled(
                f"the event loop in the I/O thread of {self._context.name} has not turned for"
                f" {self._stall_seconds:g} s: something blocks in it"
            )
        _in_loop(self._loop, self._turn)
        self._context.after(self._stall_seconds / _LOOKS_TO_STALL, self._look)

    def _turn(self) -> None:
        self._turns += 1

    def _adopt(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            self._wind_up()
        elif self._closing and not self._tasks:
            self._loop.stop()

    def _wind_up(self) -> None:
        """Cancel everything; the loop ends with the last of it, and nothing is delivered more."""
        self._closing = True
        self._space.set()
        for task in self._tasks:
            task.cancel()
        if not self._tasks:
            self._loop.stop()

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001 - handed to the actor, whose fault it is
            self._error = error
        finally:
            self._ended = True
            self._loop.close()
            os.eventfd_write(self._end, 1)


def _in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have the loop call something; nothing happens where it has ended."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
