"""The inbox that Pykka's loop reads: it turns what arrives into one thing to do after another.

Every item is a call without arguments: of a handler, a timer, a watcher. Control comes before
everything else, then what the actor's callbacks must know, then timers and descriptors, and then
one message; so no kind of work can keep another from its turn.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pykka._envelope import Envelope as PykkaEnvelope

from engine.control import PROGRESS_SECONDS, Ready
from engine.delivery import Delivery
from engine.envelope import Envelope, Kind
from engine.exchange import Exchange
from engine.receiver import Receiver
from engine.timer import Timers

_LOOK_SECONDS = 0.001
"""With messages at hand the sockets are looked at only this often; else after each item."""


@dataclass(frozen=True, slots=True)
class _Watch:
    callback: Callable[[], None]
    when: Callable[[], bool] | None


class Inbox:
    """The source of work of one actor; only its own thread may touch it."""

    def __init__(self, exchange: Exchange, timers: Timers) -> None:
        self._exchange = exchange
        self._timers = timers
        self._receiver: Receiver | None = None
        self._local: deque[PykkaEnvelope[Any]] = deque()
        self._watches: dict[int, _Watch] = {}
        self._looked_at = float("-inf")
        self._ready = False
        self._stopped = False

    def attach(self, receiver: Receiver) -> None:
        """Name the actor whose inbox this is."""
        self._receiver = receiver
        self._exchange.hooks = receiver

    def watch(
        self, descriptor: int, callback: Callable[[], None], when: Callable[[], bool] | None
    ) -> None:
        self._watches[descriptor] = _Watch(callback, when)

    def unwatch(self, descriptor: int) -> None:
        self._watches.pop(descriptor, None)

    def put(self, envelope: PykkaEnvelope[Any], /) -> None:
        """Take what Pykka itself sends: the message that ends the loop."""
        self._local.append(envelope)

    def empty(self) -> bool:
        """Whether Pykka has anything left here; messages of peers are kept by their senders."""
        return not self._local

    def get(self) -> PykkaEnvelope[Any]:
        """Return the next thing to do, waiting for it. The first call says `Ready`."""
        if not self._ready:
            self._ready = True
            self._exchange.carrier.report(Ready(os.getpid()))
        while True:
            if self._exchange.stopping and not self._stopped and self._receiver is not None:
                self._stopped = True
                self._receiver.stop()
            if self._local:
                return self._local.popleft()
            call = self._next()
            if call is not None:
                return PykkaEnvelope(call)

    def _next(self) -> Callable[[], None] | None:
        exchange = self._exchange
        if exchange.calls:
            return exchange.calls.popleft()
        now = exchange.clock.monotonic()
        if not exchange.deliveries or now - self._looked_at >= _LOOK_SECONDS:
            self._look(now)
            if exchange.calls or exchange.stopping:
                return None
        if exchange.deliveries:
            return self._deliver(*exchange.deliveries.popleft())
        return None

    def _look(self, now: float) -> None:
        """Serve the sockets, then queue what watchers and timers have to do, each once."""
        exchange = self._exchange
        wanted = {
            descriptor
            for descriptor, watch in self._watches.items()
            if watch.when is None or watch.when()
        }
        at_hand = bool(exchange.deliveries)
        timeout = 0.0
        if not at_hand:
            at = self._timers.next_at()
            timeout = PROGRESS_SECONDS if at is None else max(0.0, at - now)
        readable = exchange.service(timeout, data=not at_hand, descriptors=wanted)
        for descriptor in sorted(wanted & readable):
            exchange.calls.append(partial(self._readable, descriptor))
        self._looked_at = exchange.clock.monotonic()
        for timer in self._timers.due(self._looked_at):
            exchange.calls.append(timer.fire)

    def _readable(self, descriptor: int) -> None:
        watch = self._watches.get(descriptor)
        if watch is not None and (watch.when is None or watch.when()):
            watch.callback()

    def _deliver(self, envelope: Envelope, body: bytes) -> Callable[[], None] | None:
        exchange = self._exchange
        if not exchange.accept(envelope):
            return None
        if envelope.kind is Kind.ASK and envelope.deadline < exchange.clock.monotonic():
            exchange.expired.add()
            exchange.reply(envelope, None)
            return None
        return partial(self._handle, envelope, body)

    def _handle(self, envelope: Envelope, body: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None, "an inbox is attached to its actor before the loop starts"
        delivery = Delivery(self._exchange, envelope, len(body))
        result = receiver.receive(self._exchange.codec.decode(body), delivery)
        if envelope.kind is Kind.ASK:
            if result is not None:
                delivery.reply(result)
            return
        if result is not None:
            raise TypeError(
                f"{self._exchange.name} returned a {type(result).__name__} for a"
                f" {envelope.kind.name.lower()} of {envelope.sender}, which waits for none"
            )
        if not receiver.acks_itself:
            delivery.ack()
