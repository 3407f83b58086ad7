"""The I/O thread: bounds, wake-ups, death, stalls; with an actor's context over no transport."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select

import pytest

from engine.carrier import Arrivals
from engine.clock import SystemClock
from engine.context import Context
from engine.control import FromChild
from engine.crashpoint import CrashPoints
from engine.envelope import Envelope
from engine.errors import IoThreadDied, IoThreadStalled
from engine.exchange import Exchange
from engine.iothread import Deliver, IoThread
from engine.message import Codec, Message
from engine.metrics import Metrics

DEADLINE = 120.0


class Nothing(Message, frozen=True):
    pass


class NoCarrier:
    """A carrier without peers or supervisor: it only waits for descriptors."""

    def open(self, peer: str, endpoint: str) -> None:
        raise AssertionError((peer, endpoint))

    def shut(self, peer: str) -> list[tuple[Envelope, bytes]]:
        raise AssertionError(peer)

    def send(self, peer: str, envelope: Envelope, body: bytes) -> None:
        raise AssertionError((peer, envelope, body))

    def answer(self, envelope: Envelope, body: bytes = b"") -> bool:
        raise AssertionError((envelope, body))

    def report(self, message: FromChild) -> None:
        pass

    def poll(
        self,
        timeout: float,
        *,
        data: bool,
        descriptors: Collection[int],
    ) -> Arrivals:
        return Arrivals(readable=set(select(list(descriptors), [], [], timeout if data else 0)[0]))

    def close(self) -> None:
        pass


class Loop:
    """The loop of an actor that has nothing but its context."""

    def __init__(self) -> None:
        exchange = Exchange("a", 1, (), Codec((Nothing,)), NoCarrier(), SystemClock(), Metrics())
        self.context = Context(exchange, 0, CrashPoints("", "a", Path()))

    def until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        # Wakes the inbox up in time to look at the condition.
        while not ready():
            assert time.monotonic() < deadline, "did not happen"
            self.context.after(0.01, lambda: None)
            self.context.inbox.get().message()


@contextmanager
def io_thread(
    loop: Loop, *, items: int = 10, size: int = 1000, stall_seconds: float = 30.0
) -> Iterator[IoThread[bytes]]:
    io: IoThread[bytes] = IoThread(
        loop.context, items=items, size=size, stall_seconds=stall_seconds
    )
    io.start()
    try:
        yield io
    finally:
        loop.context.end()
    assert not [t for t in threading.enumerate() if t.name == "a-io"]


class Counter:
    """Delivers items without end; says how many got through."""

    def __init__(self, body: bytes = b"x") -> None:
        self.body = body
        self.through = 0

    async def run(self, deliver: Deliver[bytes]) -> None:
        while True:
            await deliver(self.body)
            self.through += 1


def test_a_full_queue_makes_the_coroutine_wait_and_holds_its_bound_in_items() -> None:
    loop, source = Loop(), Counter()
    with io_thread(loop, items=10) as io:
        io.submit(source.run)
        loop.until(lambda: source.through == 10)
        assert io.queued == (10, 10)
        assert io.take(4) == [b"x"] * 4
        loop.until(lambda: source.through == 14)
        assert io.queued == (10, 10)


def test_a_full_queue_holds_its_bound_in_bytes() -> None:
    loop, source = Loop(), Counter(b"x" * 300)
    with io_thread(loop, items=10, size=1000) as io:
        io.submit(source.run)
        loop.until(lambda: source.through == 3)
        assert io.queued == (3, 900)


def test_an_item_larger_than_the_bound_passes_alone() -> None:
    loop, source = Loop(), Counter(b"x" * 3000)
    with io_thread(loop, items=10, size=1000) as io:
        io.submit(source.run)
        loop.until(lambda: source.through == 1)
        assert io.queued == (1, 3000)
        assert io.take(5) == [b"x" * 3000]
        loop.until(lambda: source.through == 2)


def test_items_wake_the_actor_only_while_it_wants_them() -> None:
    loop = Loop()
    got: list[bytes] = []
    wanted = [False]

    async def three(deliver: Deliver[bytes]) -> None:
        for body in (b"1", b"2", b"3"):
            await deliver(body)

    with io_thread(loop) as io:
        loop.context.watch(io.descriptor, lambda: got.extend(io.take(1)), when=lambda: wanted[0])
        io.submit(three)
        loop.until(lambda: io.queued[0] == 3)
        for _ in range(5):
            loop.context.after(0, lambda: None)
            loop.context.inbox.get().message()
        assert got == []
        wanted[0] = True
        loop.until(lambda: len(got) == 3)
        assert got == [b"1", b"2", b"3"]
        assert io.take(1) == []


def test_many_items_pass_in_order_and_nothing_is_left_asleep() -> None:
    loop = Loop()
    got: list[bytes] = []
    bodies = [b"%d" % number for number in range(20_000)]

    async def all_of(deliver: Deliver[bytes]) -> None:
        for body in bodies:
            await deliver(body)

    with io_thread(loop, items=64) as io:
        loop.context.watch(io.descriptor, lambda: got.extend(io.take(50)))
        io.submit(all_of)
        loop.until(lambda: len(got) == len(bodies))
        assert got == bodies
        assert io.waited > 0


def test_a_cancelled_task_still_delivers_its_last_word() -> None:
    loop = Loop()

    async def sleep(deliver: Deliver[bytes]) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await deliver(b"end")

    with io_thread(loop) as io:
        task = io.submit(sleep)
        started = threading.Event()

        async def mark(_: Deliver[bytes]) -> None:
            started.set()

        io.submit(mark)
        assert started.wait(DEADLINE)
        task.cancel()
        loop.until(lambda: io.queued[0] == 1)
        assert io.take(5) == [b"end"]


def test_an_error_in_the_thread_is_the_fault_of_the_actor() -> None:
    loop, source = Loop(), Counter()

    async def fail(_: Deliver[bytes]) -> None:
        raise OSError("no route")

    with io_thread(loop, items=1) as io:
        io.submit(source.run)
        io.submit(fail)
        with pytest.raises(IoThreadDied, match="no route"):
            loop.until(lambda: False)


def test_a_loop_that_stands_still_is_the_fault_of_the_actor() -> None:
    loop = Loop()
    free = threading.Event()

    async def block(_: Deliver[bytes]) -> None:
        free.wait(DEADLINE)

    with io_thread(loop, stall_seconds=0.2) as io:
        io.submit(block)
        with pytest.raises(IoThreadStalled):
            loop.until(lambda: False)
        free.set()


def test_stopping_ends_a_coroutine_that_waits_for_space() -> None:
    loop, source = Loop(), Counter()
    with io_thread(loop, items=1) as io:
        io.submit(source.run)
        loop.until(lambda: source.through == 1)
