"""A label service that is away for a day, or takes nothing for a day, in time that is not real."""

import asyncio
import heapq
import json
import random
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, cast

from actors.label_forwarder import FREE_REFUSALS, Answered, LabelForwarder
from actors.outbound import Kind, OutboundError
from actors.outbound.client import Response
from actors.store.fence import Fence
from actors.store.session import Connection
from engine.metrics import Metrics
from tests.label_index import LabelIndex, here, index
from tests.servers.client import VirtualClock

__all__ = ["here", "index"]  # fixtures

URL = "https://labels.example.com"
DAY = 86_400.0


class Loop:
    """An actor's loop whose time jumps to what is due next."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.clock.now() + seconds, next(self._order), callback))

    def crash_point(self, name: str) -> None:
        """Nobody dies here."""

    def run(self, seconds: float) -> None:
        end = self.clock.now() + seconds
        while self._due[0][0] <= end:
            at, _, callback = heapq.heappop(self._due)
            self.clock.pass_by(at - self.clock.now())
            callback()
        self.clock.pass_by(end - self.clock.now())


class Session:
    """A connection that is never away."""

    def __init__(self, connection: Connection, fence: Fence) -> None:
        self.connection = connection
        self.fence = fence

    def attempt(self, action: Callable[[Connection], Any]) -> Any:
        return action(self.connection)


class Service:
    """Answers with `status`, 0 for not at all; keeps when it was asked, and what it took."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.status = 0
        self.asked: list[float] = []
        self.taken: list[str] = []

    async def post(self, url: str, body: bytes, **_limits: Any) -> Response:
        assert url == URL
        self.asked.append(self._loop.clock.now())
        if self.status == 0:
            raise OutboundError(Kind.CONNECT, "labels.example.com", "no answer")
        if self.status == 200:
            self.taken += [label["val"] for label in json.loads(body)["labels"]]
        return Response(self.status, {}, b"")


class World:
    """A forwarder, its service, and labels that begin to hold."""

    def __init__(self, here: LabelIndex, most_behind: int = 100_000) -> None:
        self.connection = here.connection
        self.loop = Loop()
        self.service = Service(self.loop)
        self.forwarder = LabelForwarder(
            cast("Any", self.loop),
            cast("Any", Session(here.connection, here.fence)),
            URL,
            cast("Any", self.service),
            self._submit,
            random.Random(1),
            most_behind,
        )
        self.forwarder.start()

    def _submit(self, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        answers: list[Answered] = []

        async def deliver(answer: Answered) -> None:
            answers.append(answer)

        asyncio.run(work(deliver))
        self.loop.after(0.01, lambda: self.forwarder.answered(answers[0]))

    def labels(self, *vals: str) -> None:
        self.connection.execute(
            "WITH made AS (INSERT INTO labels (uri, src, subject, val, created_at, cts, ver)"
            " SELECT 'at://did:web:l/' || v, 'did:web:l', 'did:web:s', v, now(), '2026', 1"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS i (v, n) ORDER BY n RETURNING uri)"
            " INSERT INTO label_events (label_uri, action) SELECT uri, 'created' FROM made",
            [list(vals)],
        )

    def value(self, name: str) -> float:
        return self.loop.metrics.snapshot().value(name)


def vals(first: int, beyond: int) -> list[str]:
    return [f"v{number:05}" for number in range(first, beyond)]


def test_a_service_that_is_away_for_a_day_is_not_hammered_and_then_told_everything_in_order(
    here: LabelIndex,
) -> None:
    world = World(here)
    for hour in range(24):
        world.labels(*vals(100 * hour, 100 * hour + 100))
        world.loop.run(DAY / 24)
    assert 280 < len(world.service.asked) < 400
    assert world.value("label_forward_behind") == 2_400
    assert world.value("label_forward_failures_total") == len(world.service.asked)
    world.service.status = 200
    world.loop.run(600.0)
    assert world.service.taken == vals(0, 2_400)
    assert world.value("labels_forwarded_total") == 2_400
    assert world.value("labels_not_forwarded_total") == 0


def test_of_a_day_that_is_too_much_the_newest_are_told_and_the_others_counted(
    here: LabelIndex,
) -> None:
    world = World(here, most_behind=1_000)
    for hour in range(24):
        world.labels(*vals(100 * hour, 100 * hour + 100))
        world.loop.run(DAY / 24)
    world.service.status = 200
    world.loop.run(600.0)
    assert world.service.taken == vals(1_400, 2_400)
    assert world.value("labels_not_forwarded_total") == 1_400


def test_a_service_that_calls_every_label_wrong_for_a_day_costs_a_label_each_pause(
    here: LabelIndex,
) -> None:
    world = World(here)
    world.service.status = 400
    world.labels(*vals(0, 3_000))
    world.loop.run(DAY)
    lost = int(world.value("labels_not_forwarded_total"))
    assert FREE_REFUSALS < lost < 400
    world.service.status = 200
    world.loop.run(600.0)
    assert world.service.taken == vals(lost, 3_000)
    assert world.value("labels_not_forwarded_total") == lost
