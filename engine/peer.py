"""What one actor knows of another that it has edges with, in either direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.address import Address
from engine.edge import Asks, Incoming
from engine.envelope import Kind
from engine.errors import UnknownEdge
from engine.metrics import Metrics
from engine.topology import Edge, EdgeKind
from engine.window import Window

LANES = {EdgeKind.TELL: Kind.TELL, EdgeKind.OFFER: Kind.OFFER, EdgeKind.ASK: Kind.ASK}


class Peer:
    """One peer: its present generation, the windows towards it, and the lanes from it.

    Args:
        me: the address of the actor whose knowledge this is.
        name: the peer's address.
        edges: those between the two.
        split: for the windows, see there.
        metrics: where the windows are measured.
    """

    def __init__(
        self,
        me: Address,
        name: Address,
        edges: Sequence[Edge],
        split: Callable[[bytes], Sequence[bytes]],
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.generation = 0
        self.up = False
        self.isolating = False
        self.windows: dict[Kind, Window] = {}
        self.patience = 0.0
        self.asks: Asks | None = None
        self.incoming: dict[Kind, Incoming] = {}
        self.callbacks: list[Callable[[list[Any]], None]] = []
        self.freed: list[Any] = []
        for edge in edges:
            lane = LANES[edge.kind]
            if edge.receiver == me:
                self.incoming[lane] = Incoming(name)
            elif edge.kind is EdgeKind.ASK:
                self.asks = Asks(edge.messages, edge.bytes)
            else:
                self.windows[lane] = Window(
                    edge.messages, edge.bytes, keeps=edge.kind is EdgeKind.TELL, split=split
                )
                if edge.kind is EdgeKind.TELL:
                    self.patience = edge.patience
        self.waiting = metrics.counter(
            "engine_waiting_seconds_total", "Time spent waiting for credit", to=name
        )
        self.sent = metrics.counter("engine_sent_total", "Messages sent, replays too", to=name)
        self.received = metrics.counter("engine_received_total", "Messages received", sender=name)
        self.refused = metrics.counter(
            "engine_offers_dropped_total", "Offers without credit, or lost with their peer", to=name
        )
        self.ghosts = metrics.counter(
            "engine_ghosts_total", "Messages of dead generations, not delivered", sender=name
        )
        self.buried = metrics.counter("engine_dead_letters_total", "Dead letters", to=name)
        gauges = {
            lane: (
                metrics.gauge("engine_window_messages", "Unacked", to=name, lane=lane.name.lower()),
                metrics.gauge("engine_window_bytes", "Unacked", to=name, lane=lane.name.lower()),
            )
            for lane in self.windows
        }

        def measure() -> None:
            for lane, (messages, size) in gauges.items():
                messages.set(self.windows[lane].used_messages)
                size.set(self.windows[lane].used_bytes)

        metrics.before_snapshot(measure)

    @property
    def announced(self) -> bool:
        """Whether this peer has ever been up; until then nothing is put into its window."""
        return self.generation > 0

    def window(self, lane: Kind) -> Window:
        """Return the window of a lane; an offer falls back on the window of tells.

        Raises:
            UnknownEdge: the topology has no such edge.
        """
        window = self.windows.get(lane)
        if window is None and lane is Kind.OFFER:
            window = self.windows.get(Kind.TELL)
        if window is None:
            raise UnknownEdge(
                f"the topology has no {lane.name.lower()} edge to {self.name}: declare it"
            )
        return window

    def lane_of(self, window: Window) -> Kind:
        """Return the lane that a window of this peer belongs to."""
        return next(lane for lane, mine in self.windows.items() if mine is window)

    def held(self) -> int:
        """How many of this peer's messages are delivered and not acked."""
        return sum(lane.held for lane in self.incoming.values())
