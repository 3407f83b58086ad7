"""The protocol of an actor with its peers and its supervisor, over any carrier.

Here windows, lanes, control and carrier come together. The actor's code never sees this; it uses
the context. Nothing here calls the actor's code either: what it must be told is queued in `calls`
for its own loop, so that an actor never runs two handlers at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from engine.address import Address
from engine.burial import Burial
from engine.carrier import Carrier
from engine.clock import Clock
from engine.control import (
    PROGRESS_SECONDS,
    Drain,
    Isolating,
    PeerDown,
    PeerUp,
    Progress,
    StatusSnapshot,
    Stop,
    ToChild,
)
from engine.deadletter import DeadLetterSink
from engine.envelope import Envelope, Kind
from engine.errors import Stopping, TransportFault, UnknownEdge
from engine.invariants import generation_follows
from engine.message import Codec, Message
from engine.metrics import Metrics
from engine.peer import Peer
from engine.receiver import Hooks
from engine.topology import Edge
from engine.window import Loss, Window

_ACK_AT_LATEST = 8
"""After so many finished messages the sender is told, though more are queued here."""
_ACK_SECONDS = 0.005
"""And after so much time, whichever comes first; with nothing queued it is told at once."""
_REPORT_SECONDS = PROGRESS_SECONDS * 0.8
"""A little more often than the supervisor expects it."""


class Exchange:
    """All that one generation of an actor has to do with others.

    Args:
        name: the actor's address.
        generation: which life of it this is, from 1.
        edges: those that touch it, between addresses.
        codec: for its messages.
        carrier: what carries them.
        clock: the time.
        metrics: where it counts.
        dead_letters: makes the sink, at the first dead letter; without one a message that kills
            its receiver alone ends this actor too.
        lifeline: a descriptor that becomes readable when the supervisor is gone, or -1.
        signals: a descriptor that holds a byte for each SIGTERM, or -1.
        orphaned: called when the supervisor is gone; does not return.
    """

    def __init__(
        self,
        name: Address,
        generation: int,
        edges: Sequence[Edge],
        codec: Codec,
        carrier: Carrier,
        clock: Clock,
        metrics: Metrics,
        *,
        dead_letters: Callable[[], DeadLetterSink] | None = None,
        lifeline: int = -1,
        signals: int = -1,
        orphaned: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.generation = generation
        self.codec = codec
        self.carrier = carrier
        self.clock = clock
        self.metrics = metrics
        self.hooks: Hooks | None = None
        self.calls: deque[Callable[[], None]] = deque()
        self.deliveries: deque[tuple[Envelope, bytes]] = deque()
        self.handled = 0
        self.draining = False
        self.stopping = False
        self.expired = metrics.counter(
            "engine_asks_expired_total", "Asks skipped, being too late to be answered"
        )
        self._burial = Burial(name, clock, dead_letters)
        self._lifeline = lifeline
        self._signals = signals
        self._own = frozenset(fd for fd in (lifeline, signals) if fd >= 0)
        self._orphaned = orphaned
        self._unacked = 0
        self._acked_at = 0.0
        self._report_at = 0.0
        names = dict.fromkeys(e.receiver if e.sender == name else e.sender for e in edges)
        self.peers: Mapping[Address, Peer] = {
            peer: Peer(
                name,
                peer,
                [edge for edge in edges if peer in (edge.sender, edge.receiver)],
                self._split,
                metrics,
            )
            for peer in names
        }

    def peer(self, name: Address) -> Peer:
        """Return a peer. Raises UnknownEdge where the topology has no edge with it."""
        peer = self.peers.get(name)
        if peer is None:
            raise UnknownEdge(f"the topology has no edge between {self.name} and {name!r}")
        return peer

    def push(self, peer: Peer, window: Window, body: bytes, token: Any = None) -> None:
        """Take a message for which there is credit, and send it where that can be done now."""
        window.push(body, token)
        self._send(peer, window)

    def ask(self, peer: Peer, body: bytes, deadline: float) -> int:
        """Send an ask to a peer that is up; returns its number."""
        assert peer.asks is not None
        number = peer.asks.begin(len(body))
        self.carrier.send(peer.name, self._envelope(peer, Kind.ASK, number, deadline), body)
        peer.sent.add()
        return number

    def ack(self, sender: Address, lane: Kind, generation: int, number: int) -> None:
        """Note that a lane is done up to a number; its sender is told at the next `service`."""
        if self.peers[sender].incoming[lane].ack(generation, number):
            self._unacked += 1

    def reply(self, ask: Envelope, body: bytes | None) -> None:
        """Answer an ask, or (None) say that it was skipped. To a dead asker it is not sent."""
        peer = self.peers[ask.sender]
        if ask.generation != peer.incoming[Kind.ASK].generation:
            return
        kind = Kind.ACK if body is None else Kind.REPLY
        back = self._back(kind, Kind.ASK, ask.sender, ask.generation, ask.number)
        self.carrier.answer(back, body or b"")

    def held(self) -> int:
        """How many messages lie here that are not acked."""
        return len(self.deliveries) + sum(peer.held() for peer in self.peers.values())

    def outstanding(self, name: Address | None = None) -> int:
        """How many tells to one peer, or to all, are not acked."""
        chosen = self.peers.values() if name is None else (self.peer(name),)
        windows = (peer.windows.get(Kind.TELL) for peer in chosen)
        return sum(window.used_messages for window in windows if window is not None)

    def service(
        self, timeout: float, *, data: bool, descriptors: Collection[int] = frozenset()
    ) -> set[int]:
        """Look at the sockets, waiting at most ``timeout`` seconds; returns readable descriptors.

        Acks, answers and control take effect at once; messages are queued in `deliveries`, and
        only with ``data``; what the actor must know is queued in `calls`.
        """
        now = self.clock.monotonic()
        if now >= self._report_at:
            self.report_progress("")
        self._tell_acks(now)
        timeout = max(0.0, min(timeout, self._report_at - now))
        arrivals = self.carrier.poll(timeout, data=data, descriptors=self._own | set(descriptors))
        if arrivals.readable:
            self._own_descriptors(arrivals.readable)
        for envelope, body in arrivals.returns:
            self._returned(envelope, body)
        for message in arrivals.control:
            self._controlled(message)
        self.deliveries.extend(arrivals.data)
        return arrivals.readable

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Serve all but messages until something holds; False if it did not within ``seconds``.

        Raises:
            Stopping: a stop was asked for.
        """
        deadline = self.clock.monotonic() + seconds
        while not ready():
            if self.stopping:
                raise Stopping(f"{self.name} was told to stop while it waited")
            left = deadline - self.clock.monotonic()
            if left <= 0:
                return False
            self.service(left, data=False)
        return True

    def accept(self, envelope: Envelope) -> bool:
        """Take note that a message is about to be handled; False if a ghost sent it.

        Raises:
            InvariantViolated: messages before it are missing.
            TransportFault: it is not for this generation of this actor.
            UnknownEdge: the topology has no such edge.
        """
        peer = self.peer(envelope.sender)
        lane = peer.incoming.get(envelope.lane)
        if lane is None:
            raise UnknownEdge(
                f"{envelope.sender} sent a {envelope.lane.name.lower()}, for which it has no edge"
            )
        if (envelope.to, envelope.to_generation) != (self.name, self.generation):
            raise TransportFault(
                f"a message for {envelope.to} (generation {envelope.to_generation}) came to"
                f" {self.name} (generation {self.generation})"
            )
        if not lane.accept(envelope.generation, envelope.number):
            peer.ghosts.add()
            return False
        if envelope.alone:
            # Should it kill this actor, the sender will know that it was this one.
            back = (envelope.sender, envelope.generation, envelope.number)
            self.carrier.answer(self._back(Kind.BEGUN, envelope.lane, *back))
        peer.received.add()
        self.handled += 1
        return True

    def report_progress(self, note: str) -> None:
        """Tell the supervisor now how far this actor is."""
        self._report_at = self.clock.monotonic() + _REPORT_SECONDS
        waiting = {
            peer.name: int(peer.waiting.value * 1000)
            for peer in self.peers.values()
            if peer.windows
        }
        self.carrier.report(
            Progress(self.handled, self.held(), note, waiting, self.metrics.snapshot())
        )

    def progress_due(self) -> bool:
        return self.clock.monotonic() >= self._report_at

    def request_stop(self) -> None:
        """Have the loop end after the handler that runs now."""
        self.stopping = True

    def request_drain(self) -> None:
        """Have the actor finish what it holds and then stop; asked twice, it stops at once."""
        if self.draining:
            self.stopping = True
        else:
            self.draining = True
            if self.hooks is not None:
                self.calls.append(self.hooks.on_drain)

    def close(self) -> None:
        """Tell the last acks and figures, and close the dead-letter sink.

        The carrier is its owner's.
        """
        self._tell_acks(float("inf"))
        self.report_progress("")
        self._burial.close()

    def _split(self, body: bytes) -> Sequence[bytes]:
        parts: Sequence[Message] = self.codec.decode(body).split()
        return [body] if len(parts) < 2 else [self.codec.encode(part) for part in parts]

    def _envelope(
        self, peer: Peer, kind: Kind, number: int, deadline: float = 0.0, *, alone: bool = False
    ) -> Envelope:
        me, to = (self.name, self.generation), (peer.name, peer.generation)
        return Envelope(kind, kind, *me, *to, number, deadline, alone)

    def _send(self, peer: Peer, window: Window) -> None:
        entries = window.take()
        if not entries:
            return
        lane = peer.lane_of(window)
        for entry in entries:
            envelope = self._envelope(peer, lane, entry.number, alone=entry.alone)
            self.carrier.send(peer.name, envelope, entry.body)
        peer.sent.add(len(entries))

    def _tell_acks(self, now: float) -> None:
        young = self._unacked < _ACK_AT_LATEST and now - self._acked_at < _ACK_SECONDS
        if not self._unacked or (self.deliveries and young):
            return
        self._unacked = 0
        self._acked_at = now
        for peer in self.peers.values():
            for lane, incoming in peer.incoming.items():
                number = incoming.due()
                if number:
                    self.carrier.answer(
                        self._back(Kind.ACK, lane, peer.name, incoming.generation, number)
                    )

    def _back(
        self, kind: Kind, lane: Kind, to: Address, to_generation: int, number: int
    ) -> Envelope:
        return Envelope(kind, lane, self.name, self.generation, to, to_generation, number)

    def _own_descriptors(self, readable: set[int]) -> None:
        if self._lifeline in readable and self._orphaned is not None:
            self._orphaned()
        if self._signals in readable:
            for _ in os.read(self._signals, 64):
                self.request_drain()

    def _returned(self, envelope: Envelope, body: bytes) -> None:
        peer = self.peer(envelope.sender)
        if envelope.generation != peer.generation:
            return
        if envelope.lane is Kind.ASK:
            assert peer.asks is not None
            peer.asks.settle(envelope.number, body if envelope.kind is Kind.REPLY else None)
            return
        window = peer.window(envelope.lane)
        if envelope.kind is Kind.BEGUN:
            window.begun(envelope.number)
            return
        self._free(peer, window.ack(envelope.number))
        self._send(peer, window)

    def _free(self, peer: Peer, tokens: list[Any]) -> None:
        if tokens and peer.callbacks:
            if not peer.freed:
                self.calls.append(partial(self._call_back, peer))
            peer.freed.extend(tokens)
        self._note_isolation(peer)

    def _call_back(self, peer: Peer) -> None:
        tokens, peer.freed = peer.freed, []
        for callback in peer.callbacks:
            callback(tokens)

    def _controlled(self, message: ToChild) -> None:
        match message:
            case PeerUp(name, generation, endpoint):
                self._peer_up(self.peer(name), generation, endpoint)
            case PeerDown(name, generation, crashed):
                self._peer_down(self.peer(name), generation, crashed=crashed)
            case Drain():
                if not self.draining:
                    self.request_drain()
            case Stop():
                self.request_stop()
            case StatusSnapshot(status):
                if self.hooks is not None:
                    self.calls.append(partial(self.hooks.on_status, status))

    def _peer_up(self, peer: Peer, generation: int, endpoint: str) -> None:
        generation_follows(peer.name, peer.generation, generation)
        if peer.up:
            self._peer_down(peer, peer.generation, crashed=False)
        peer.generation = generation
        peer.up = True
        for incoming in peer.incoming.values():
            incoming.renew(generation)
        if peer.windows or peer.asks is not None:
            self.carrier.open(peer.name, endpoint)
        for window in peer.windows.values():
            window.connect()
            self._send(peer, window)
        if self.hooks is not None:
            self.calls.append(partial(self.hooks.on_peer, peer.name, generation, True))

    def _peer_down(self, peer: Peer, generation: int, *, crashed: bool) -> None:
        if not peer.up or generation != peer.generation:
            return
        for envelope, body in self.carrier.shut(peer.name):
            self._returned(envelope, body)
        peer.up = False
        if peer.asks is not None:
            peer.asks.lose()
        for window in peer.windows.values():
            self._lost(peer, window, window.disconnect(crashed=crashed))
        if self.hooks is not None:
            self.calls.append(partial(self.hooks.on_peer, peer.name, generation, False))

    def _lost(self, peer: Peer, window: Window, loss: Loss) -> None:
        peer.refused.add(len(loss.dropped))
        if loss.condemned is not None:
            lane = peer.lane_of(window)
            self._burial.bury(peer.name, peer.generation, lane, loss.condemned.body)
            peer.buried.add()
            self._free(peer, window.bury())
        self._note_isolation(peer)

    def _note_isolation(self, peer: Peer) -> None:
        isolating = any(window.isolating for window in peer.windows.values())
        if isolating != peer.isolating:
            peer.isolating = isolating
            self.carrier.report(Isolating(peer.name, isolating))
