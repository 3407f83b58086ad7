"""The system as data: who runs, in which order, and who may talk to whom."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engine.child import ChildSpec, ServiceSpec
from engine.restarts import Backoff, Strategy

if TYPE_CHECKING:
    from engine.address import Address
    from engine.clock import Clock
    from engine.deadletter import DeadLetterSink
    from engine.message import Message

__all__ = ["Backoff", "Edge", "EdgeKind", "Group", "Strategy", "Topology", "TopologyError"]


class TopologyError(ValueError):
    """The topology contradicts itself; the message says where."""


class EdgeKind(enum.Enum):
    TELL = "tell"
    """Waits for credit; kept until acked and replayed to the next generation."""
    OFFER = "offer"
    """Never waits; dropped, and counted, without credit or without a peer."""
    ASK = "ask"
    """Waits for the answer; these edges must not form a circle."""


@dataclass(frozen=True)
class Edge:
    """One direction of talk, bounded in messages and in bytes that are sent and not yet acked.

    `sender` and `receiver` are addresses, or the name of a group for each of its actors.
    `patience` is how many seconds a tell waits for credit.
    """

    sender: Address
    receiver: Address
    kind: EdgeKind
    messages: int = 64
    bytes: int = 8 * 1024 * 1024
    patience: float = 60.0


@dataclass(frozen=True)
class Group:
    """Children that are started together and share their strategy and intensity.

    More than `intensity` restarts in `period` seconds end the run. Deaths of receivers that are fed
    one message at a time do not count as such; but with more than `isolated_deaths` of them in
    `isolated_period` seconds it is the receiver that is broken, and not its messages, and to go on
    would bury the whole stream.
    """

    name: str
    children: tuple[ChildSpec | ServiceSpec, ...]
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 5
    period: float = 60.0
    backoff: Backoff = field(default_factory=Backoff)
    isolated_deaths: int = 300
    isolated_period: float = 3600.0


@dataclass(frozen=True)
class Topology:
    """Groups in start order (services first, sinks next, the source last) and the edges.

    `epoch` is called once the leading groups of services are ready, before the first actor starts,
    and `closing` when the last actor has ended, before the first service stops, to give back what
    `epoch` took, if it was called: it must return within moments and raise nothing.
    `logging` is called in every child with its name, and must be picklable, as must `dead_letters`
    and `clock`. Raises TopologyError where names clash or are unknown, or ask edges form a circle.
    """

    groups: tuple[Group, ...]
    edges: tuple[Edge, ...] = ()
    messages: tuple[type[Message], ...] = ()
    dead_letters: Callable[[], DeadLetterSink] | None = None
    logging: Callable[[str], None] | None = None
    epoch: Callable[[], int] | None = None
    closing: Callable[[], None] | None = None
    clock: Callable[[], Clock] | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_services()
        self._check_edges()
        self._check_asks()

    @property
    def children(self) -> Iterator[ChildSpec | ServiceSpec]:
        """Every child, in start order."""
        for group in self.groups:
            yield from group.children

    def resolve(self, name: str) -> tuple[Address, ...]:
        """The actors that `name` stands for: itself, or those of the group called so."""
        for group in self.groups:
            if group.name == name:
                return tuple(c.name for c in group.children if isinstance(c, ChildSpec))
        return tuple(c.name for c in self.children if c.name == name and isinstance(c, ChildSpec))

    def edges_of(self, name: Address) -> tuple[Edge, ...]:
        """The edges that touch this actor, between addresses."""
        return tuple(edge for edge in self._resolved() if name in (edge.sender, edge.receiver))

    def peers_of(self, name: Address) -> frozenset[Address]:
        """Those with whom this actor shares an edge, in either direction."""
        ends = {end for edge in self.edges_of(name) for end in (edge.sender, edge.receiver)}
        return frozenset(ends - {name})

    def _resolved(self) -> Iterator[Edge]:
        for edge in self.edges:
            for sender in self.resolve(edge.sender):
                for receiver in self.resolve(edge.receiver):
                    yield replace(edge, sender=sender, receiver=receiver)

    def _check_names(self) -> None:
        groups: set[str] = set()
        children: set[str] = set()
        for group in self.groups:
            if group.name in groups:
                raise TopologyError(f"two groups are called {group.name!r}")
            groups.add(group.name)
            if not group.children:
                raise TopologyError(f"group {group.name!r} has no children")
            for child in group.children:
                if child.name in children:
                    raise TopologyError(f"two children are called {child.name!r}")
                if not child.name or not child.name.isascii() or set(child.name) & set("/.# \0"):
                    raise TopologyError(f"{child.name!r} cannot be an address: it names a socket")
                children.add(child.name)
        for group in self.groups:
            if group.name in children and [c.name for c in group.children] != [group.name]:
                raise TopologyError(
                    f"{group.name!r} is a group and also a child that is not the whole of it"
                )

    def _check_services(self) -> None:
        actor_seen: str | None = None
        for group in self.groups:
            kinds = {type(child) for child in group.children}
            if len(kinds) > 1:
                raise TopologyError(f"group {group.name!r} mixes actors and services")
            if kinds == {ChildSpec}:
                actor_seen = group.name
            elif actor_seen is not None:
                raise TopologyError(
                    f"services start first: group {group.name!r} comes after {actor_seen!r}"
                )

    def _check_edges(self) -> None:
        for edge in self.edges:
            for end in (edge.sender, edge.receiver):
                if not self.resolve(end):
                    raise TopologyError(
                        f"edge {edge.sender} -> {edge.receiver}: no actor {end!r} in any group"
                    )
            if edge.messages < 1 or edge.bytes < 1 or edge.patience < 0:
                raise TopologyError(
                    f"edge {edge.sender} -> {edge.receiver}: its window must hold a message"
                )
        seen: set[tuple[str, str, EdgeKind]] = set()
        for edge in self._resolved():
            if edge.sender == edge.receiver:
                raise TopologyError(f"edge {edge.sender} -> {edge.receiver}: leads to itself")
            key = (edge.sender, edge.receiver, edge.kind)
            if key in seen:
                raise TopologyError(
                    f"edge {edge.sender} -> {edge.receiver} ({edge.kind.value}) is declared twice"
                )
            seen.add(key)

    def _check_asks(self) -> None:
        asks: dict[str, set[str]] = {}
        for edge in self._resolved():
            if edge.kind is EdgeKind.ASK:
                asks.setdefault(edge.sender, set()).add(edge.receiver)
        done: set[str] = set()

        def walk(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                circle = " -> ".join((*path[path.index(name) :], name))
                raise TopologyError(f"ask edges form a circle: {circle}; it could wait for itself")
            if name in done:
                return
            for receiver in sorted(asks.get(name, ())):
                walk(receiver, (*path, name))
            done.add(name)

        for sender in sorted(asks):
            walk(sender, ())
