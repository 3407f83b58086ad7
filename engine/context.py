"""What an actor can do: speak to others, know the time, wait, stop. One per actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from engine.address import Address
from engine.clock import Clock
from engine.control import Fail, Finish
from engine.crashpoint import CrashPoints
from engine.envelope import Kind
from engine.errors import (
    ActorAway,
    AskFailed,
    AskTimeout,
    MailboxFull,
    MessageTooBig,
    Stopping,
    UnknownEdge,
)
from engine.exchange import Exchange
from engine.inbox import Inbox
from engine.message import Message
from engine.metrics import Metrics
from engine.ref import Ref
from engine.timer import Timer, Timers


class Context:
    """An actor's door to everything outside it.

    It belongs to the actor's own thread: an I/O thread has an `IoThread` to pass things through.

    Attributes:
        name: the actor's address.
        generation: which life of it this is, from 1.
        epoch: the number of the run, given by the topology (0 where it gives none).
        clock: the time.
        metrics: counters, gauges and histograms of this process.
        inbox: what Pykka's loop reads; of no use to the actor itself.
    """

    def __init__(self, exchange: Exchange, epoch: int, crash_points: CrashPoints) -> None:
        self._exchange = exchange
        self._timers = Timers()
        self._crash_points = crash_points
        self._at_end: list[Callable[[], None]] = []
        self.epoch = epoch
        self.inbox = Inbox(exchange, self._timers)
        self.clock: Clock = exchange.clock
        self.metrics: Metrics = exchange.metrics
        self.name: Address = exchange.name
        self.generation: int = exchange.generation

    def ref(self, to: Address) -> Ref:
        """Return a handle on one peer. Raises UnknownEdge where there is no edge with it."""
        self._exchange.peer(to)
        return Ref(self, to)

    def tell(
        self, to: Address, message: Message, *, token: Any = None, patience: float | None = None
    ) -> None:
        """Send a message that is kept until it is acked, and replayed to a restarted receiver.

        It takes a credit of the edge's window. With none left, or before the receiver was first
        announced, it waits, serving control and acks meanwhile.

        Args:
            to: the receiver.
            message: what to say.
            token: handed to the callbacks of `on_ack` when this message is acked.
            patience: seconds to wait for credit; the edge's own by default.

        Raises:
            MailboxFull: no credit within the patience; it holds the message.
            MessageTooBig: it is larger than the whole window.
            Stopping: a stop was asked for while it waited.
            UnknownEdge: the topology has no tell edge to this receiver.
        """
        peer = self._exchange.peer(to)
        window = peer.window(Kind.TELL)
        body = self._exchange.codec.encode(message)
        size = len(body)
        if not (window.fits(size) and peer.announced):
            seconds = peer.patience if patience is None else patience
            began = self.clock.monotonic()
            try:
                came = self._exchange.wait_until(
                    lambda: peer.announced and window.fits(size), seconds
                )
            finally:
                peer.waiting.add(self.clock.monotonic() - began)
            if not came:
                raise MailboxFull(to, message, seconds)
        self._exchange.push(peer, window, body, token)

    def room(self, to: Address) -> tuple[int, int]:
        """Return the messages and bytes of credit left towards a peer; none before it was up.

        Raises:
            UnknownEdge: the topology has no tell or offer edge to it.
        """
        peer = self._exchange.peer(to)
        window = peer.windows.get(Kind.TELL) or peer.window(Kind.OFFER)
        return window.room() if peer.announced else (0, 0)

    def outstanding(self, to: Address | None = None) -> int:
        """Return how many tells, to one peer or in all, are not acked yet."""
        return self._exchange.outstanding(to)

    def offer(self, to: Address, message: Message, *, token: Any = None) -> bool:
        """Send a message if that can be done at once; False, and counted, if not.

        On an offer edge it is lost with its receiver; where there is only a tell edge, an offer
        that was taken is kept and replayed like a tell.

        Raises:
            MessageTooBig: it is larger than the whole window.
            UnknownEdge: the topology has neither edge to this receiver.
        """
        peer = self._exchange.peer(to)
        window = peer.window(Kind.OFFER)
        body = self._exchange.codec.encode(message)
        if not (window.fits(len(body)) and peer.up):
            peer.refused.add()
            return False
        self._exchange.push(peer, window, body, token)
        return True

    def ask(self, to: Address, message: Message, timeout: float) -> Message:
        """Ask and wait for the answer, at most ``timeout`` seconds, serving control meanwhile.

        The time travels with the ask: a receiver that comes to it too late skips it.

        Raises:
            AskTimeout: no answer came in time.
            ActorAway: the receiver is not up.
            AskFailed: the receiver died, or stopped, while the ask was with it.
            MessageTooBig: it is larger than the whole window.
            Stopping: a stop was asked for while it waited.
            UnknownEdge: the topology has no ask edge to this receiver.
        """
        peer = self._exchange.peer(to)
        asks = peer.asks
        if asks is None:
            raise UnknownEdge(f"the topology has no ask edge to {to}: declare it")
        body = self._exchange.codec.encode(message)
        if len(body) > asks.limit_bytes:
            raise MessageTooBig(f"an ask of {len(body)} bytes to {to}: {asks.limit_bytes} at most")
        if not peer.up:
            raise ActorAway(f"{to} is not up: ask again later")
        deadline = self.clock.monotonic() + timeout
        generation = peer.generation

        def gone() -> bool:
            return not peer.up or peer.generation != generation

        if not self._exchange.wait_until(lambda: gone() or asks.fits(len(body)), timeout):
            raise AskTimeout(f"{to} has {asks.limit_messages} asks of {self.name} unanswered")
        if gone():
            raise AskFailed(f"{to} (generation {generation}) went away before it was asked")
        number = self._exchange.ask(peer, body, deadline)
        try:
            left = deadline - self.clock.monotonic()
            if not self._exchange.wait_until(lambda: asks.over(number), left):
                raise AskTimeout(f"{to} did not answer within {timeout:g} s")
            reply = asks.result(number)
        finally:
            asks.leave(number)
        if reply is None:
            if gone():
                raise AskFailed(f"{to} (generation {generation}) ended before it answered")
            raise AskTimeout(f"{to} came to the ask after its {timeout:g} s")
        return self._exchange.codec.decode(reply)

    def on_ack(self, to: Address, callback: Callable[[list[Any]], None]) -> None:
        """Have the tokens of acked messages given to ``callback``, in the order they were sent.

        It is called from the actor's loop, with the tokens of all messages acked since the last
        call; messages without a token are left out. Dead letters count as acked.
        """
        self._exchange.peer(to).callbacks.append(callback)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Have something called from the actor's loop, not before this many seconds."""
        return self._timers.add(self.clock.monotonic() + seconds, callback)

    def watch(
        self,
        fd: int,
        callback: Callable[[], None],
        *,
        when: Callable[[], bool] | None = None,
    ) -> None:
        """Call ``callback`` from the actor's loop whenever a descriptor is readable.

        With ``when``, only while that holds; so an actor takes from a source only when it has the
        credit to pass it on.
        """
        self.inbox.watch(fd, callback, when)

    def unwatch(self, fd: int) -> None:
        """Watch a descriptor no longer; do it before closing it."""
        self.inbox.unwatch(fd)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Have something called when the loop has ended, in good order or by a fault."""
        self._at_end.append(callback)

    def end(self) -> None:
        """Call what `at_end` was given, the latest first; for the engine alone."""
        while self._at_end:
            self._at_end.pop()()

    def wait(self, seconds: float) -> None:
        """Sleep inside a handler, serving control and acks; counts as progress.

        Raises:
            Stopping: a stop was asked for.
        """
        self._exchange.wait_until(lambda: False, seconds)

    def progress(self, note: str = "") -> None:
        """Say from inside long work that it goes on; cheap enough to be called often.

        It also serves control and acks, so that peers which come and go are known.

        Raises:
            Stopping: a stop was asked for.
        """
        if self._exchange.progress_due():
            self._exchange.report_progress(note)
            self._exchange.service(0.0, data=False)
            if self._exchange.stopping:
                raise Stopping(f"{self.name} was told to stop within long work")

    def crash_point(self, name: str) -> None:
        """Pass a named place at which a test may have armed a crash; else nothing."""
        self._crash_points.reach(name)

    def finish(self, report: dict[str, Any]) -> None:
        """Tell the supervisor that the whole job is done: shut down in order, exit code 0."""
        self._exchange.carrier.report(Finish(report))

    def fail(self, message: str, exit_code: int) -> None:
        """Tell the supervisor that the run cannot go on, in one line, and with which exit code."""
        self._exchange.carrier.report(Fail(message, exit_code))

    def give_up(self, message: str, exit_code: int) -> NoReturn:
        """`fail`, and end this actor here: what its handler worked on is neither acked nor a fault.

        Raises:
            Stopping: always; let it pass through.
        """
        self.fail(message, exit_code)
        raise Stopping(message)

    def stop(self) -> None:
        """End this actor after the handler that runs now."""
        self._exchange.request_stop()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for, or a drain."""
        return self._exchange.stopping or self._exchange.draining
