"""The way down: each child is asked to drain, then told to stop, then killed.

Groups go down in the reverse of their start order, so that whoever still has something to hand on
finds the others up. Each step has a deadline, and a hard kill is always safe: it repeats work.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from engine.child import ChildSpec
from engine.control import Drain, Stop, ToChild
from engine.restarts import Strategy
from engine.ward import ActorWard, ServiceWard, State, Ward

KILL_SECONDS: Final = 5.0
"""After which a SIGKILL is repeated."""
HURRY_SECONDS: Final = 1.0
HURRIED_SERVICE_SECONDS: Final = 5.0
SERVICE_GRACE_SECONDS: Final = 5.0

Send = Callable[[str, int, ToChild], bool]

log = structlog.get_logger("supervisor")


class Step(enum.Enum):
    DRAIN = "drain"
    STOP = "stop"
    TERMINATE = "SIGTERM"
    KILL = "SIGKILL"


Steps = Sequence[tuple[Step, float]]
"""Steps in order, each with the seconds it is given."""

HURRIED: Final[Steps] = (
    (Step.STOP, HURRY_SECONDS),
    (Step.TERMINATE, HURRY_SECONDS),
    (Step.KILL, KILL_SECONDS),
)
AT_ONCE: Final[Steps] = ((Step.KILL, KILL_SECONDS),)


def draining(spec: ChildSpec) -> Steps:
    """The steps of an actor when the whole system goes down."""
    return (
        (Step.DRAIN, spec.drain_seconds),
        (Step.TERMINATE, spec.terminate_seconds),
        (Step.KILL, KILL_SECONDS),
    )


def dismissal(spec: ChildSpec) -> Steps:
    """The steps of an actor that ends because of another, with whom it could not drain."""
    return (
        (Step.STOP, spec.terminate_seconds),
        (Step.TERMINATE, spec.terminate_seconds),
        (Step.KILL, KILL_SECONDS),
    )


class Ending:
    """Brings one actor down by steps.

    An actor that is not ready yet has no ears for the first ones and begins with SIGTERM. The last
    step is repeated when its time is up, as a process may be born or wake up late.
    """

    def __init__(self, ward: ActorWard, steps: Steps, send: Send, now: float) -> None:
        self.ward = ward
        self._send = send
        self._was_ready = ward.ready_at is not None
        ward.state = State.ENDING
        self._begin(steps, now)

    def hurry(self, steps: Steps, now: float) -> None:
        """Go on with other steps from here."""
        if self.ward.alive:
            self._begin(steps, now)

    def turn(self, now: float) -> None:
        """Take the next step if the time of the present one is up."""
        if self.ward.alive and now >= self._deadline:
            step, seconds = self._steps[self._at]
            if step is not Step.KILL:
                log.warning(
                    f"{self.ward.name} did not end within {seconds:g} s of {step.value}",
                    actor=self.ward.name,
                    pid=self.ward.pid,
                    generation=self.ward.generation,
                    next=self._steps[self._at + 1][0].value,
                )
            self._take(min(self._at + 1, len(self._steps) - 1), now)

    @property
    def deadline(self) -> float:
        return self._deadline

    def _begin(self, steps: Steps, now: float) -> None:
        self._steps = tuple(steps)
        first = 0
        if not self._was_ready:
            hard = (Step.TERMINATE, Step.KILL)
            first = next(at for at, (step, _) in enumerate(self._steps) if step in hard)
        self._take(first, now)

    def _take(self, at: int, now: float) -> None:
        self._at = at
        step, seconds = self._steps[at]
        self._deadline = now + seconds
        ward = self.ward
        if step is Step.DRAIN:
            self._send(ward.name, ward.generation, Drain(seconds))
        elif step is Step.STOP:
            self._send(ward.name, ward.generation, Stop())
        elif step is Step.TERMINATE:
            ward.terminate()
        else:
            ward.kill()


class ServiceEnding:
    """Stops one service, and kills it when that takes too long."""

    def __init__(self, ward: ServiceWard, seconds: float, now: float) -> None:
        self.ward = ward
        ward.state = State.ENDING
        self.deadline = now + seconds + SERVICE_GRACE_SECONDS
        ward.stop(seconds)

    def hurry(self, seconds: float, now: float) -> None:
        self.deadline = min(self.deadline, now + seconds)

    def turn(self, now: float) -> None:
        if self.ward.alive and now >= self.deadline:
            log.warning(f"{self.ward.name} did not stop in time: killed", actor=self.ward.name)
            self.ward.kill()
            self.deadline = now + SERVICE_GRACE_SECONDS


class Ladder:
    """Takes all wards down, the last started first.

    A rung is a group, or one child of a group whose children depend on their predecessors.
    `closing` is called once, when no actor is left and services are yet to be stopped.
    """

    def __init__(
        self,
        wards: Sequence[Ward],
        send: Send,
        now: float,
        closing: Callable[[], None] | None = None,
    ) -> None:
        self._send = send
        self._closing = closing
        self._rungs = _rungs(wards)
        self._endings: list[Ending | ServiceEnding] = []
        self._hurried = 0
        for ward in wards:
            ward.dismissed = True
            if not ward.alive:
                ward.state = State.DONE
        self._descend(now)

    @property
    def done(self) -> bool:
        return not self._rungs and not self._endings

    @property
    def deadline(self) -> float:
        """When the next step is due, in monotonic seconds."""
        return min((ending.deadline for ending in self._endings), default=0.0)

    def turn(self, now: float) -> None:
        for ending in self._endings:
            ending.turn(now)
        self._descend(now)

    def hurry(self, now: float) -> None:
        """Give no more time to drain; called once more, give no more time at all."""
        self._hurried += 1
        for ending in self._endings:
            if isinstance(ending, Ending):
                ending.hurry(HURRIED if self._hurried == 1 else AT_ONCE, now)
            else:
                ending.hurry(HURRIED_SERVICE_SECONDS if self._hurried == 1 else 0.0, now)
        # All actors at once: nobody waits for the work of another any more.
        while self._rungs and isinstance(self._rungs[0][0], ActorWard):
            self._enter(self._rungs.pop(0), now)
        self.turn(now)

    def _descend(self, now: float) -> None:
        while True:
            self._endings = [ending for ending in self._endings if ending.ward.alive]
            if self._endings:
                return
            if not self._rungs or isinstance(self._rungs[0][0], ServiceWard):
                self._close()
            if not self._rungs:
                return
            self._enter(self._rungs.pop(0), now)

    def _close(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing()

    def _enter(self, rung: Sequence[Ward], now: float) -> None:
        for ward in rung:
            if not ward.alive:
                continue
            if isinstance(ward, ServiceWard):
                seconds = ward.spec.drain_seconds
                if self._hurried:
                    seconds = HURRIED_SERVICE_SECONDS if self._hurried == 1 else 0.0
                self._endings.append(ServiceEnding(ward, seconds, now))
            elif isinstance(ward, ActorWard):
                steps = (draining(ward.spec), HURRIED, AT_ONCE)[min(self._hurried, 2)]
                self._endings.append(Ending(ward, steps, self._send, now))


def _rungs(wards: Sequence[Ward]) -> list[list[Ward]]:
    rungs: list[list[Ward]] = []
    for ward in reversed(wards):
        same = rungs and rungs[-1][0].group.name == ward.group.name
        if same and ward.group.strategy is not Strategy.REST_FOR_ONE:
            rungs[-1].append(ward)
        else:
            rungs.append([ward])
    return rungs
