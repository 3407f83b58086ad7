"""What the supervisor knows of a child before it runs, and what the child is given at its birth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engine.restarts import Restart

if TYPE_CHECKING:
    from engine.actor import Actor
    from engine.address import Address
    from engine.clock import Clock
    from engine.deadletter import DeadLetterSink
    from engine.message import Message
    from engine.topology import Edge

__all__ = ["Boot", "ChildSpec", "Restart", "Service", "ServiceFailed", "ServiceSpec"]


@dataclass(frozen=True)
class ChildSpec:
    """An actor in a process of its own.

    `settings` is pickled into the process. `stall_seconds` without Progress, or `start_seconds`
    without Ready or Progress, and it is killed and restarted. `drain_seconds` is its time on the
    shutdown ladder before SIGTERM, `terminate_seconds` that before SIGKILL. `wants_status` has a
    StatusSnapshot sent to it each second.
    """

    name: Address
    actor: type[Actor]
    settings: Any = None
    restart: Restart = Restart.PERMANENT
    stall_seconds: float = 60.0
    start_seconds: float = 60.0
    drain_seconds: float = 20.0
    terminate_seconds: float = 5.0
    wants_status: bool = False


class ServiceFailed(Exception):
    """A service that cannot work and would not work after a restart either."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Service(Protocol):
    """A program with a readiness check, looked after by the supervisor from its own process.

    All but `stop` must return soon; `stop` is called in a thread, so that a second Ctrl-C can still
    `kill` what hangs in it. `start` and `poll_ready` may raise ServiceFailed.
    """

    def start(self) -> int:
        """Start the program. Returns a descriptor that becomes readable when it ends (a pidfd).

        It stays open until the next `start`, or until `stop` or `kill` is called.
        """

    def poll_ready(self) -> bool | str:
        """True when it answers; else False, or what it waits for. Asked a few times a second."""

    def stop(self, seconds: float) -> None:
        """Stop it gracefully within `seconds`, then by force. Returns when it is gone."""

    def kill(self) -> None:
        """End it by force, which is safe, as it repeats work at the next start. Gone on return."""

    @property
    def pid(self) -> int | None:
        """None while it does not run."""

    def describe_exit(self) -> str:
        """How the last run ended, in a few words."""


@dataclass(frozen=True)
class ServiceSpec:
    """A service among the children; it is started before, and stopped after, what needs it."""

    name: Address
    service: Service
    restart: Restart = Restart.PERMANENT
    start_seconds: float = 300.0
    drain_seconds: float = 30.0


@dataclass(frozen=True)
class Boot:
    """Everything the process of an actor needs, pickled into it.

    `edges` are those that touch it, with group names resolved to addresses. `crash_points` is the
    specification of armed crash points ("" for none). `clock` None means the system's clock.
    The two descriptors are set in the child: `parent_sentinel` becomes readable when the supervisor
    is gone (the child must then end at once), `signal_descriptor` when SIGTERM came (drain; stop at
    once if draining already). A `signal_descriptor` holds one byte for each signal: read it empty.
    """

    name: Address
    generation: int
    epoch: int
    run_dir: str
    control_endpoint: str
    actor: type[Actor]
    settings: Any
    edges: tuple[Edge, ...]
    messages: tuple[type[Message], ...]
    dead_letters: Callable[[], DeadLetterSink] | None = None
    crash_points: str = ""
    clock: Callable[[], Clock] | None = None
    logging: Callable[[str], None] | None = None
    wants_status: bool = False
    parent_sentinel: int = -1
    signal_descriptor: int = -1
