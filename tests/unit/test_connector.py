"""The pauses between connections: they grow with failures in a row, and only with those."""

import random
from collections.abc import Callable

import pytest

from actors.connector import Connector, Work
from actors.reader import Place
from actors.upstream import Deliver, End, Ending
from engine.restarts import Backoff

LASTING = 60.0


class Nowhere:
    """An upstream that nothing is read from, and its session."""

    async def read(self, cursor: int | None, deliver: Deliver) -> Ending:
        raise AssertionError("nothing runs what was submitted")

    def cancel(self) -> None:
        pass


class Bench:
    """A connector in a world of its own, whose time stands still until it is told."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []
        self.connector = Connector(
            "relay.example",
            Nowhere(),
            submit=self.submit,
            after=self.after,
            now=lambda: self.time,
            place=lambda: Place(7),
            backoff=Backoff(1.0, 64.0, jitter=0.0),
            lasting=LASTING,
            chance=random.Random(1),
        )
        self.connector.connect()

    def submit(self, work: Work) -> Nowhere:
        return Nowhere()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.pauses.append(seconds)
        callback()

    def live(self, seconds: float, end: End) -> None:
        """Have the connection open, live so long, and end."""
        self.connector.opened()
        self.time += seconds
        self.connector.ended(Ending(end))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_pauses_grow_while_connections_fail(bench: Bench) -> None:
    for _ in range(4):
        bench.connector.ended(Ending(End.UNREACHABLE))
    assert bench.pauses == [1.0, 2.0, 4.0, 8.0]


def test_pauses_grow_while_connections_end_early_and_bring_nothing(bench: Bench) -> None:
    for _ in range(4):
        bench.live(LASTING / 2, End.CLOSED)
    assert bench.pauses == [1.0, 2.0, 4.0, 8.0]


def test_a_source_that_is_quiet_by_nature_is_connected_to_anew_at_once(bench: Bench) -> None:
    for _ in range(4):
        bench.live(LASTING, End.STALLED)
    assert bench.pauses == [1.0, 1.0, 1.0, 1.0]


def test_a_connection_that_lasted_ends_the_row_of_failures_before_it(bench: Bench) -> None:
    for _ in range(3):
        bench.connector.ended(Ending(End.UNREACHABLE))
    bench.live(LASTING, End.CLOSED)
    bench.connector.ended(Ending(End.UNREACHABLE))
    assert bench.pauses == [1.0, 2.0, 4.0, 1.0, 2.0]


def test_the_life_of_one_connection_is_no_merit_of_the_next(bench: Bench) -> None:
    bench.live(LASTING, End.CLOSED)
    bench.time += 10 * LASTING
    bench.connector.ended(Ending(End.UNREACHABLE))
    bench.connector.ended(Ending(End.UNREACHABLE))
    assert bench.pauses == [1.0, 2.0, 4.0]


def test_something_new_ends_the_row_of_failures(bench: Bench) -> None:
    bench.connector.ended(Ending(End.UNREACHABLE))
    bench.connector.opened()
    bench.connector.progressed()
    bench.connector.ended(Ending(End.CLOSED))
    assert bench.pauses == [1.0, 1.0]
