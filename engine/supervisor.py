"""The one that starts everything in order, watches it, restarts what dies, and takes it down."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import structlog

from engine.address import Address
from engine.child import ServiceFailed
from engine.clock import Clock, SystemClock
from engine.control import (
    ControlMessage,
    Fail,
    Fault,
    Finish,
    Isolating,
    PeerDown,
    PeerUp,
    Progress,
    Ready,
    StatusSnapshot,
    Stopped,
    control_endpoint,
    inbox_endpoint,
)
from engine.process import SignalReader
from engine.shutdown import HURRIED_SERVICE_SECONDS, Ladder
from engine.starting import Starter
from engine.status import Status, children_status
from engine.topology import Topology
from engine.transport import ControlHub
from engine.verdicts import Judge
from engine.ward import ActorWard, Exit, Run, ServiceWard, State, Ward, wards_of

EXIT_GAVE_UP: Final = 70
"""The exit code after too many restarts, or of a child that can never be started."""

LONGEST_PATH: Final = 107
"""Bytes that the kernel takes for the path of a Unix socket."""

TICK_SECONDS: Final = 1.0
ABSENCE_SECONDS: Final = 1.0
LAST_WORDS_SECONDS: Final = 0.25
SERVICE_POLL_SECONDS: Final = 0.1

log = structlog.get_logger("supervisor")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `stopped_by` is "finish", "fail", "gave up" or the name of a signal; `report` is what the actor
    that finished the run had to say; `restarts` counts by child, those without any left out.
    """

    exit_code: int
    message: str
    stopped_by: str
    report: dict[str, Any] | None = None
    restarts: dict[Address, int] = field(default_factory=dict)


class Supervisor:
    """Runs one topology in one run directory, in the main thread, to its end.

    `on_tick` is called each second, and a last time at the end. `seed` makes the jitter of the
    restarts repeatable. Raises ValueError when the run directory's path is too long for sockets.
    """

    def __init__(
        self,
        topology: Topology,
        run_dir: str | Path,
        *,
        on_tick: Callable[[Status], None] | None = None,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        self._topology = topology
        self._run = Run(topology, Path(run_dir))
        self._on_tick = on_tick
        self._clock: Clock = clock or SystemClock()
        self._wards = wards_of(topology)
        self._by_name = {ward.name: ward for ward in self._wards}
        self._peers = {ward.name: topology.peers_of(ward.name) for ward in self._wards}
        self._judge = Judge(topology, self._wards, random.Random(seed))  # noqa: S311 - jitter
        self._starter = Starter(topology, self._wards)
        self._ladder: Ladder | None = None
        self._outcome: Outcome | None = None
        self._was_signalled = False
        self._born_at = self._next_tick = 0.0
        longest = max((len(ward.name) for ward in self._wards), default=0)
        if len(control_endpoint(run_dir)) + longest + len(".0000000000") > LONGEST_PATH:
            raise ValueError(f"the run directory's path is too long for sockets: {run_dir}")

    def run(self) -> Outcome:
        """Returns when every child is gone. An error of the supervisor itself kills them all."""
        with SignalReader() as signals:
            self._hub = ControlHub(control_endpoint(self._run.run_dir))
            self._born_at = self._next_tick = self._clock.monotonic()
            try:
                while self._ladder is None or not self._ladder.done:
                    self._turn(signals)
            finally:
                self._leave_nothing()
                self._hub.close()
        assert self._outcome is not None
        self._report_status(self._clock.monotonic())
        restarts = {ward.name: ward.restarts for ward in self._wards if ward.restarts}
        return replace(self._outcome, restarts=restarts)

    def _turn(self, signals: SignalReader) -> None:
        before = self._clock.monotonic()
        if self._ladder is None:
            self._start_due(before)
        self._tick(before)
        wards = {ward.descriptor: ward for ward in self._wards if ward.descriptor is not None}
        timeout = self._timeout(before)
        messages, readable = self._hub.poll(timeout, [signals.descriptor, *wards])
        now = self._clock.monotonic()
        self._forgive(now - before - timeout)
        for name, generation, message in messages:
            self._heard(name, generation, message, now)
        if signals.descriptor in readable:
            self._signalled(signals.read(), now)
        for descriptor, ward in wards.items():
            if descriptor in readable:
                self._died(ward, now)
        self._watch(now)

    def _timeout(self, now: float) -> float:
        due = self._next_tick
        if self._ladder is not None:
            due = min(due, self._ladder.deadline)
        else:
            due = min([due, *(ending.deadline for ending in self._judge.dismissals)])
            for ward in self._wards:
                if ward.state is State.WAITING and ward.start_at > now:
                    due = min(due, ward.start_at)
            if self._starter.busy:
                due = min(due, now + SERVICE_POLL_SECONDS)
        return max(0.0, due - now)

    def _forgive(self, absence: float) -> None:
        """Time in which the supervisor itself was stopped says nothing about its children."""
        if absence > ABSENCE_SECONDS:
            for ward in self._wards:
                ward.heard_at += absence

    # Starting

    def _start_due(self, now: float) -> None:
        try:
            epoch = self._starter.epoch()
        except ServiceFailed as error:
            self._stop(Outcome(error.exit_code, error.message, "fail"), now)
            return
        if epoch is not None:
            self._run = replace(self._run, epoch=epoch)
        for ward in self._starter.due(now):
            self._begin(ward, now)
            if self._ladder is not None:
                return

    def _begin(self, ward: Ward, now: float) -> None:
        try:
            ward.begin(self._run, now)
        except ServiceFailed as error:
            self._stop(Outcome(error.exit_code, error.message, "fail"), now)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
            message = f"{ward.name} cannot be handed to a process: {error}"
            self._stop(Outcome(EXIT_GAVE_UP, message, "fail"), now)
        except OSError as error:
            self._sentence(ward, Exit(orderly=False, reason=f"cannot be started: {error}"), now)
        else:
            log.info(
                f"{ward.name} starts", actor=ward.name, pid=ward.pid, generation=ward.generation
            )

    def _became_ready(self, ward: Ward, now: float) -> None:
        ward.state = State.READY
        ward.ready_at = ward.heard_at = now
        log.info(
            f"{ward.name} is ready",
            actor=ward.name,
            pid=ward.pid,
            generation=ward.generation,
            after_seconds=round(now - ward.begun_at, 3),
        )
        for peer in self._ready_peers(ward):
            self._introduce(peer, ward)
            self._introduce(ward, peer)

    def _introduce(self, ward: Ward, to: Ward) -> None:
        endpoint = inbox_endpoint(self._run.run_dir, ward.name, ward.generation)
        self._hub.send(to.name, to.generation, PeerUp(ward.name, ward.generation, endpoint))

    def _ready_peers(self, ward: Ward) -> list[Ward]:
        peers = (self._by_name[name] for name in sorted(self._peers[ward.name]))
        return [peer for peer in peers if peer.alive and peer.state is State.READY]

    # Listening

    def _heard(self, name: Address, generation: int, message: ControlMessage, now: float) -> None:
        ward = self._by_name.get(name)
        if ward is None:
            return
        if isinstance(message, Finish):
            # What a child says of the whole run holds, even if it was its last word.
            log.info(f"{name} has finished the run: shutting down", actor=name)
            self._stop(Outcome(0, "finished", "finish", message.report), now)
        elif isinstance(message, Fail):
            self._stop(Outcome(message.exit_code, message.message, "fail"), now)
        elif generation != ward.generation:
            return
        elif isinstance(message, Progress):
            ward.heard(message, now)
        elif isinstance(message, Ready):
            if ward.state is State.STARTING:
                self._became_ready(ward, now)
        elif isinstance(message, Fault):
            ward.fault = message.reason
        elif isinstance(message, Stopped):
            ward.stopped = True
        elif isinstance(message, Isolating):
            self._isolating(ward, message)

    def _isolating(self, ward: Ward, message: Isolating) -> None:
        if message.on:
            if message.peer not in ward.isolates:
                self._judge.pardon(self._by_name[message.peer])
            ward.isolates.add(message.peer)
            log.warning(
                f"{message.peer} died twice on the same messages of {ward.name},"
                " which sends them one at a time now",
                actor=message.peer,
                sender=ward.name,
            )
        else:
            ward.isolates.discard(message.peer)
            log.info(
                f"{ward.name} sends to {message.peer} as usual again",
                actor=message.peer,
                sender=ward.name,
            )

    def _signalled(self, names: list[str], now: float) -> None:
        if not names:
            return
        if self._ladder is None:
            log.info(f"{names[0]}: shutting down", signal=names[0])
            self._stop(Outcome(0, f"stopped by {names[0]}", names[0]), now)
        else:
            again = f"{names[0]} again: hurrying the shutdown"
            first = f"{names[0]}: hurrying the shutdown that is under way"
            log.warning(again if self._was_signalled else first, signal=names[0])
            self._ladder.hurry(now)
        self._was_signalled = True

    # Watching

    def _watch(self, now: float) -> None:
        if self._ladder is not None:
            self._ladder.turn(now)
            return
        self._judge.turn(now)
        for ward in self._wards:
            if not ward.alive or ward.state not in {State.STARTING, State.READY}:
                continue
            if isinstance(ward, ServiceWard) and ward.state is State.STARTING:
                self._ask_service(ward, now)
            if self._ladder is None:
                self._judge.silence(ward, now)

    def _ask_service(self, ward: ServiceWard, now: float) -> None:
        try:
            answer = ward.poll_ready()
        except ServiceFailed as error:
            self._stop(Outcome(error.exit_code, error.message, "fail"), now)
            return
        if answer is True:
            self._became_ready(ward, now)
        elif isinstance(answer, str) and ward.noted(answer, now):
            log.info(f"{ward.name} waits for: {answer}", actor=ward.name, pid=ward.pid)

    def _died(self, ward: Ward, now: float) -> None:
        pid, was_ready = ward.pid, ward.ready_at is not None
        ward.reap()
        self._await_last_words(ward, now)
        exit_ = ward.verdict()
        ward.last_exit = exit_.reason
        if was_ready:
            crashed = not (exit_.orderly or ward.dismissed)
            for peer in self._by_name.values():
                if peer.name in self._peers[ward.name] and peer.alive:
                    down = PeerDown(ward.name, ward.generation, crashed)
                    self._hub.send(peer.name, peer.generation, down)
        if self._ladder is not None or ward.dismissed:
            ward.state = State.WAITING if self._ladder is None else State.DONE
            log.info(
                f"{ward.name} is down",
                actor=ward.name,
                pid=pid,
                generation=ward.generation,
                reason=exit_.reason,
            )
            return
        self._sentence(ward, exit_, now, pid=pid)

    def _sentence(self, ward: Ward, exit_: Exit, now: float, pid: int | None = None) -> None:
        """Restart a ward that ended by itself, leave it, or give up the run."""
        despair = self._judge.sentence(ward, exit_, now, pid=pid, send=self._hub.send)
        if despair:
            self._stop(Outcome(EXIT_GAVE_UP, despair, "gave up"), now)

    def _await_last_words(self, ward: Ward, now: float) -> None:
        """The end of a process may be seen before what it said last has come through."""
        until = self._clock.monotonic() + LAST_WORDS_SECONDS
        while ward.owes_last_words and (left := until - self._clock.monotonic()) > 0:
            for name, generation, message in self._hub.poll(left, ())[0]:
                self._heard(name, generation, message, now)

    # Ending

    def _stop(self, outcome: Outcome, now: float) -> None:
        """Begin the shutdown. What fails while it goes on overrides that all was well."""
        if self._outcome is None or (self._outcome.exit_code == 0 and outcome.exit_code != 0):
            self._outcome = outcome
            if outcome.exit_code:
                log.error(f"shutting down: {outcome.message}", exit_code=outcome.exit_code)
        if self._ladder is None:
            self._judge.dismissals.clear()
            self._ladder = Ladder(self._wards, self._hub.send, now, self._topology.closing)

    def _leave_nothing(self) -> None:
        for ward in reversed(self._wards):
            if ward.alive and isinstance(ward, ActorWard):
                ward.kill()
                ward.reap()
        for ward in reversed(self._wards):
            if ward.alive and isinstance(ward, ServiceWard):
                ward.service_spec.service.stop(HURRIED_SERVICE_SECONDS)
                ward.reap()

    # Telling

    def _tick(self, now: float) -> None:
        if now >= self._next_tick:
            self._next_tick = now + TICK_SECONDS
            self._report_status(now)

    def _report_status(self, now: float) -> None:
        curious = [
            ward
            for ward in self._wards
            if isinstance(ward, ActorWard)
            and ward.child.wants_status
            and ward.ready_at
            and ward.alive
        ]
        if not curious and self._on_tick is None:
            return
        status = self.status(now)
        for ward in curious:
            self._hub.send(ward.name, ward.generation, StatusSnapshot(status.encode()))
        if self._on_tick is not None:
            self._on_tick(status)

    def status(self, now: float) -> Status:
        """The system at `now` (monotonic seconds)."""
        if self._ladder is not None:
            phase = "stopping"
        else:
            phase = "running" if self._starter.complete else "starting"
        return Status(
            time=self._clock.now(),
            up_seconds=now - self._born_at,
            phase=phase,
            epoch=self._run.epoch,
            stop_reason="" if self._outcome is None else self._outcome.message,
            children=children_status(self._wards, now),
        )
