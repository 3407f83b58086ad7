"""A small pipeline for the simulator: a source, stores that apply what it tells, and an oracle.

What a real system keeps in a database is a `World` here: it outlives every death. The source goes
on from the saved checkpoint; a store applies each number once, whatever comes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.actor import Actor, Delivery
from engine.child import ChildSpec
from engine.deadletter import DeadLetter
from engine.errors import ActorAway, AskFailed, AskTimeout
from engine.message import Message
from engine.topology import Edge, EdgeKind, Group, Topology
from engine.watermark import Watermark

STORES = ("store-0", "store-1")


class Numbers(Message, frozen=True):
    items: tuple[int, ...]

    def split(self) -> Sequence[Message]:
        return [Numbers((item,)) for item in self.items]


class May(Message, frozen=True):
    item: int


class Yes(Message, frozen=True):
    item: int


class Hint(Message, frozen=True):
    item: int


@dataclass
class World:
    """What is durable."""

    total: int
    checkpoint: int = -1
    applied: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in STORES})
    repeats: int = 0
    deadly: frozenset[int] = frozenset()
    letters: list[DeadLetter] = field(default_factory=list)
    most_out: int = 0

    def rank(self, item: int) -> str:
        return STORES[item % len(STORES)]

    def complete(self) -> bool:
        return self.checkpoint == self.total - 1

    # The world is its own factory and sink of dead letters.
    def __call__(self) -> World:
        return self

    def put(self, letter: DeadLetter) -> None:
        self.letters.append(letter)

    def close(self) -> None:
        pass


class Source(Actor):
    """Tells 0, 1, 2, ... in threes to the store of each, and saves its low-watermark."""

    def on_start(self) -> None:
        self.world: World = self.settings
        self.watermark = Watermark(self.world.checkpoint)
        self.next = self.world.checkpoint + 1
        for store in STORES:
            self.context.on_ack(store, self.acked)
        self.context.after(0, self.pour)
        self.context.after(0.05, self.save)

    def pour(self) -> None:
        while self.next < self.world.total:
            first = self.next
            items = [n for n in range(first, first + 6) if n < self.world.total]
            self.next = items[-1] + 1
            self.watermark.begin_all(items)
            for store in STORES:
                part = tuple(item for item in items if self.world.rank(item) == store)
                if part:
                    self.context.tell(store, Numbers(part), token=part, patience=3000)
                out = self.context.outstanding(store)
                self.world.most_out = max(self.world.most_out, out)
            self.context.crash_point("source.told")

    def acked(self, tokens: list[Any]) -> None:
        for part in tokens:
            self.watermark.finish(part)

    def save(self) -> None:
        assert self.watermark.value >= self.world.checkpoint
        self.world.checkpoint = self.watermark.value
        if self.world.complete():
            self.context.finish({"checkpoint": self.world.checkpoint})
        self.context.after(0.05, self.save)


class Store(Actor):
    """Holds what it gets, and applies it in one step when enough is there or time has passed."""

    acks_itself = True

    def on_start(self) -> None:
        self.world: World = self.settings
        self.held: list[int] = []
        self.last: Delivery | None = None
        self.timed = False

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        assert isinstance(message, Numbers)
        if self.world.deadly & set(message.items):
            raise RuntimeError("cannot digest this")
        self.held.extend(message.items)
        self.last = delivery
        if len(self.held) >= 8 or delivery.alone:
            self.flush()
        elif not self.timed:
            self.timed = True
            self.context.after(0.05, self.flush)
        return None

    def flush(self) -> None:
        self.timed = False
        if self.last is None:
            return
        self.context.crash_point("store.before")
        self.permit(self.held[-1])
        mine = self.world.applied[self.context.name]
        known = set(mine)
        for item in self.held:
            if item in known:
                self.world.repeats += 1
            else:
                mine.append(item)
        self.context.crash_point("store.between")
        self.last.ack()
        self.context.offer("oracle", Hint(self.held[-1]))
        self.held, self.last = [], None
        self.context.crash_point("store.after")

    def permit(self, item: int) -> None:
        try:
            answer = self.context.ask("oracle", May(item), 0.2)
            assert answer == Yes(item)
        except (ActorAway, AskFailed, AskTimeout):
            self.context.wait(0.01)


class Oracle(Actor):
    """Answers now or later, and takes hints."""

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        if isinstance(message, Hint):
            return None
        assert isinstance(message, May)
        answer = Yes(message.item)
        if message.item % 3:
            return answer
        self.context.after(0.03 * (message.item % 10), lambda: delivery.reply(answer))
        return None


def topology(world: World) -> Topology:
    return Topology(
        groups=(
            Group("oracle", (ChildSpec("oracle", Oracle),)),
            Group("store", tuple(ChildSpec(name, Store, world) for name in STORES)),
            Group("source", (ChildSpec("source", Source, world),)),
        ),
        edges=(
            Edge("source", "store", EdgeKind.TELL, messages=6, bytes=10_000),
            Edge("store", "oracle", EdgeKind.ASK, messages=4),
            Edge("store", "oracle", EdgeKind.OFFER, messages=2),
        ),
        messages=(Numbers, May, Yes, Hint),
        dead_letters=world,
    )
