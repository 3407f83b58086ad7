"""What was fetched on its way to the shards: who goes first, and how much of a shard a backfill
takes."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from actors.fetching.sending import LONGEST_REST, Sending
from actors.messages import RepoRecord, ResyncBegins, WholeRepo, WholeRepos
from engine.context import Context
from engine.message import Message

ANN, BOB = "did:plc:ann", "did:plc:bob"


class World:
    """The context of an actor, with one shard that takes what there is room for."""

    def __init__(self) -> None:
        self.clock = self
        self.now = 0.0
        self.room = 100
        self.taken: list[tuple[Message, Any]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.acked: list[Any] = []
        self.sending = Sending(cast("Context", self), 1, self.acked.extend)
        self.sending.start()

    def monotonic(self) -> float:
        return self.now

    def offer(self, to: str, message: Message, *, token: Any) -> bool:
        if len(self.taken) >= self.room:
            return False
        self.taken.append((message, token))
        return True

    def on_ack(self, to: str, callback: Callable[[list[Any]], None]) -> None:
        self.callback = callback

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, callback))

    def ack(self) -> None:
        """The shard has written all that it took."""
        tokens = [token for _, token in self.taken]
        self.taken.clear()
        self.callback(tokens)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self.timers if at <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for callback in due:
            callback()

    @property
    def messages(self) -> list[Message]:
        return [message for message, _ in self.taken]


@pytest.fixture
def world() -> World:
    return World()


def small(did: str, records: int = 1, size: int = 10) -> WholeRepo:
    return WholeRepo(did, "rev", b"data", [RepoRecord("a/b", b"", bytes(size))] * records)


def test_what_somebody_waits_for_goes_before_backfills_and_as_it_comes(world: World) -> None:
    world.room = 0
    world.sending.send(ANN, small(ANN), 1, patient=True)
    world.sending.send(BOB, ResyncBegins(BOB), 2)
    world.sending.send(ANN, ResyncBegins(ANN), 3)
    world.room = 100
    world.passes(1.0)
    assert [type(message) for message in world.messages] == [ResyncBegins, ResyncBegins, WholeRepos]
    assert world.messages[0] == ResyncBegins(BOB)


def test_of_a_backfill_a_shard_has_one_message_at_a_time_and_then_a_rest(world: World) -> None:
    for number in range(3):
        world.sending.send(ANN, ResyncBegins(f"{ANN}{number}"), number, patient=True)
    assert world.messages == [ResyncBegins(f"{ANN}0")]
    world.passes(0.2)
    world.ack()
    assert (world.acked, world.messages) == ([0], [])
    # What is urgent has no rest.
    world.sending.send(BOB, ResyncBegins(BOB), "bob")
    assert world.messages == [ResyncBegins(BOB)]
    world.passes(0.19)
    assert len(world.messages) == 1
    world.passes(0.02)
    assert world.messages[1:] == [ResyncBegins(f"{ANN}1")]


def test_a_shard_that_was_away_is_not_rested_from_for_as_long(world: World) -> None:
    for number in range(2):
        world.sending.send(ANN, ResyncBegins(ANN), number, patient=True)
    world.passes(600.0)
    world.ack()
    world.passes(LONGEST_REST)
    assert world.messages == [ResyncBegins(ANN)]


def test_small_repositories_share_a_message_within_its_bounds(world: World) -> None:
    world.room = 0
    for number, (records, size) in enumerate([(200, 10), (250, 10), (100, 10), (1, 2_900_000)]):
        world.sending.send(ANN, small(f"{ANN}{number}", records, size), number, patient=True)
    world.sending.send(BOB, ResyncBegins(BOB), 4, patient=True)
    world.room = 100
    world.passes(1.0)
    seen = []
    for _ in range(3):
        (message,) = world.messages
        seen.append(len(message.repos) if isinstance(message, WholeRepos) else 0)
        world.ack()
        world.passes(1.0)
    assert seen == [2, 2, 0]
    assert world.acked == [0, 1, 2, 3, 4]
