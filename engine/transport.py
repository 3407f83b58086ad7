"""The only file that knows ZeroMQ: the sockets of an actor, and the supervisor's end of control.

An actor binds one ROUTER, its inbox, under a path with its generation, and connects one DEALER to
the inbox of each peer that it speaks to. Messages go down the DEALER; acks and replies come back up
the same connection. Control runs over a DEALER and ROUTER pair of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec
import zmq

from engine import control
from engine.address import Address, identity, parse_identity
from engine.carrier import Arrivals
from engine.control import ControlMessage, Fault, FromChild, ToChild
from engine.envelope import Envelope, decode, encode
from engine.errors import TransportFault

_CONTROL_HIGH_WATER = 10_000
_COPY_BELOW = 65_536
"""Bodies from this size on are handed to ZeroMQ without a copy; below, copying is quicker."""
_DATA_AT_ONCE = 32
"""How many messages are taken from the inbox between two looks at the control lane."""


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    # With a linger the process of a dead peer's friend would hang at its exit; what matters is
    # kept in the windows until it is acked.
    socket.setsockopt(zmq.LINGER, 0)
    return socket


class ControlHub:
    """The supervisor's end of the control lane.

    Args:
        endpoint: where to bind, such as ``ipc:///run/dir/control``.
    """

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._router = _socket(self._context, zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.SNDHWM, _CONTROL_HIGH_WATER)
        self._router.setsockopt(zmq.RCVHWM, _CONTROL_HIGH_WATER)
        self._router.bind(endpoint)
        self._watched = _Watched({self._router})

    def poll(
        self, timeout: float, descriptors: Collection[int]
    ) -> tuple[list[tuple[Address, int, ControlMessage]], set[int]]:
        """Wait at most ``timeout`` seconds for children to say something or descriptors to be read.

        Returns the messages, each with the name and generation of the child that sent it, and
        those of ``descriptors`` (sentinels, wake-up descriptors) that are readable. What cannot be
        read as a control message becomes a `Fault` of the child that sent it.
        """
        sockets, readable = self._watched.poll(timeout, descriptors)
        messages: list[tuple[Address, int, ControlMessage]] = []
        if self._router in sockets:
            for frames in _drain(self._router, _CONTROL_HIGH_WATER):
                name, generation = parse_identity(frames[0])
                message: ControlMessage
                try:
                    message = control.decode_from_child(frames[-1])
                except msgspec.DecodeError as error:
                    message = Fault(f"sent what is no control message: {error}")
                messages.append((name, generation, message))
        return messages, readable

    def send(self, to: Address, generation: int, message: ControlMessage) -> bool:
        """Tell a child something; False if this generation is not (or no longer) connected."""
        try:
            self._router.send_multipart(
                [identity(to, generation), control.encode(message)], zmq.NOBLOCK
            )
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True

    def close(self) -> None:
        self._router.close()
        self._context.term()


class ControlClient:
    """A child's end of the control lane, for a process that has no inbox (yet).

    Args:
        name: the child's address.
        generation: which life of that child this is.
        endpoint: where the supervisor's hub is bound.
    """

    def __init__(
        self,
        name: Address,
        generation: int,
        endpoint: str,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._owned = context is None
        self._context = zmq.Context(io_threads=1) if context is None else context
        self.socket = _socket(self._context, zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, identity(name, generation))
        self.socket.setsockopt(zmq.SNDHWM, _CONTROL_HIGH_WATER)
        self.socket.setsockopt(zmq.RCVHWM, _CONTROL_HIGH_WATER)
        self.socket.connect(endpoint)

    def report(self, message: FromChild) -> None:
        """Tell the supervisor something.

        Raises:
            TransportFault: the supervisor has not read for so long that the lane is full.
        """
        try:
            self.socket.send(control.encode(message), zmq.NOBLOCK)
        except zmq.Again as error:
            raise TransportFault(
                f"the control lane is full: the supervisor has not read {_CONTROL_HIGH_WATER}"
                " messages"
            ) from error

    def receive(self) -> list[ToChild]:
        """Return what the supervisor has said since the last call, without waiting."""
        frames = _drain(self.socket, _CONTROL_HIGH_WATER)
        return [control.decode_to_child(frame[-1]) for frame in frames]

    def close(self, flush_seconds: float = 0.0) -> None:
        """Close; with ``flush_seconds``, give the last words that long to leave the process."""
        self.socket.close(linger=int(flush_seconds * 1000))
        if self._owned:
            self._context.term()


class SocketCarrier:
    """The carrier over ZeroMQ: the sockets of one generation of one actor.

    Args:
        name: the actor's address.
        generation: which life of it this is; part of every routing id.
        inbox: where to bind its inbox.
        control_endpoint: where the supervisor's hub is.
        high_water: messages that may lie in one direction of one connection; far above what the
            windows let through, so that it is never reached.
    """

    def __init__(
        self, name: Address, generation: int, inbox: str, control_endpoint: str, high_water: int
    ) -> None:
        self._identity = identity(name, generation)
        self._high_water = high_water
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._control = ControlClient(name, generation, control_endpoint, self._context)
        self._inbox = _socket(self._context, zmq.ROUTER)
        self._inbox.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._inbox.setsockopt(zmq.SNDHWM, high_water)
        self._inbox.setsockopt(zmq.RCVHWM, high_water)
        self._inbox.bind(inbox)
        self._peers: dict[Address, zmq.Socket[bytes]] = {}
        self._watched = _Watched({self._control.socket, self._inbox})

    def open(self, peer: Address, endpoint: str) -> None:
        self.shut(peer)
        socket = _socket(self._context, zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, self._identity)
        socket.setsockopt(zmq.SNDHWM, self._high_water)
        socket.setsockopt(zmq.RCVHWM, self._high_water)
        socket.connect(endpoint)
        self._peers[peer] = socket
        self._watched.add(socket)

    def shut(self, peer: Address) -> list[tuple[Envelope, bytes]]:
        socket = self._peers.pop(peer, None)
        if socket is None:
            return []
        returns = [_opened(frames) for frames in _drain(socket, self._high_water)]
        self._watched.discard(socket)
        socket.close()
        return returns

    def send(self, peer: Address, envelope: Envelope, body: bytes) -> None:
        socket = self._peers[peer]
        try:
            socket.send(encode(envelope), zmq.NOBLOCK | zmq.SNDMORE)
            socket.send(body, zmq.NOBLOCK, copy=len(body) < _COPY_BELOW)
        except zmq.Again as error:
            raise TransportFault(
                f"the connection to {peer} holds {self._high_water} messages though the windows"
                " allow fewer: the bound of an edge is broken"
            ) from error

    def answer(self, envelope: Envelope, body: bytes = b"") -> bool:
        to = identity(envelope.to, envelope.to_generation)
        try:
            self._inbox.send_multipart([to, encode(envelope), body], zmq.NOBLOCK)
        except zmq.Again as error:
            raise TransportFault(
                f"{envelope.to} has not read {self._high_water} acks and replies though it cannot"
                " have that many messages out: the bound of an edge is broken"
            ) from error
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True

    def report(self, message: FromChild) -> None:
        self._control.report(message)

    def poll(self, timeout: float, *, data: bool, descriptors: Collection[int]) -> Arrivals:
        self._watched.mute(self._inbox, muted=not data)
        sockets, readable = self._watched.poll(timeout, descriptors)
        arrivals = Arrivals(readable=readable)
        for socket in sockets:
            if socket is self._control.socket:
                arrivals.control = self._control.receive()
            elif socket is self._inbox:
                frames = _drain(self._inbox, _DATA_AT_ONCE)
                arrivals.data = [_opened(frame[1:]) for frame in frames]
            else:
                frames = _drain(socket, self._high_water)
                arrivals.returns.extend(_opened(frame) for frame in frames)
        return arrivals

    def close(self, flush_seconds: float = 0.0) -> None:
        """Close all sockets; ``flush_seconds`` are for the last words to the supervisor."""
        for peer in list(self._peers):
            self.shut(peer)
        self._inbox.close()
        self._control.close(flush_seconds)
        self._context.term()


class _Watched:
    """A poller over sockets that stay and descriptors that come and go."""

    def __init__(self, sockets: Iterable[zmq.Socket[bytes]]) -> None:
        self._poller = zmq.Poller()
        self._sockets: set[zmq.Socket[bytes]] = set()
        self._muted: set[zmq.Socket[bytes]] = set()
        self._descriptors: frozenset[int] = frozenset()
        for socket in sockets:
            self.add(socket)

    def add(self, socket: zmq.Socket[bytes]) -> None:
        self._sockets.add(socket)
        self._poller.register(socket, zmq.POLLIN)

    def discard(self, socket: zmq.Socket[bytes]) -> None:
        self._sockets.discard(socket)
        self._poller.unregister(socket)

    def mute(self, socket: zmq.Socket[bytes], *, muted: bool) -> None:
        if muted and socket not in self._muted:
            self._muted.add(socket)
            self._poller.unregister(socket)
        elif not muted and socket in self._muted:
            self._muted.discard(socket)
            self._poller.register(socket, zmq.POLLIN)

    def poll(
        self, timeout: float, descriptors: Collection[int]
    ) -> tuple[list[zmq.Socket[bytes]], set[int]]:
        wanted = frozenset(descriptors)
        if wanted != self._descriptors:
            for descriptor in self._descriptors - wanted:
                self._poller.unregister(descriptor)
            for descriptor in wanted - self._descriptors:
                self._poller.register(descriptor, zmq.POLLIN)
            self._descriptors = wanted
        sockets: list[zmq.Socket[bytes]] = []
        readable: set[int] = set()
        for item, _ in self._poller.poll(max(0, int(timeout * 1000 + 0.999))):
            if isinstance(item, int):
                readable.add(item)
            else:
                sockets.append(item)
        return sockets, readable


def _drain(socket: zmq.Socket[bytes], limit: int) -> list[list[bytes]]:
    found: list[list[bytes]] = []
    try:
        while len(found) < limit:
            found.append(socket.recv_multipart(zmq.NOBLOCK))
    except zmq.Again:
        return found
    return found


def _opened(frames: list[bytes]) -> tuple[Envelope, bytes]:
    return decode(frames[0]), frames[1]
