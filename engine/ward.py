"""One child in the supervisor's care: its spec, its state and its present process."""

from __future__ import annotations

import abc
import enum
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from engine.child import Boot, ChildSpec, ServiceSpec
from engine.control import Progress, control_endpoint, inbox_path
from engine.metrics import MetricsSnapshot
from engine.process import ChildProcess, describe_exit
from engine.restarts import Restart
from engine.topology import Group, Topology

CRASH_POINTS_VARIABLE = "SKYSHARD_CRASH_POINTS"
NOTE_SECONDS = 5.0
"""Between two lines of the log about what a starting service waits for."""

log = structlog.get_logger("supervisor")


class State(enum.Enum):
    WAITING = "waiting"
    """For its turn in the order of start, or for the end of its backoff."""
    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    """It was asked to stop, or killed, and is not gone yet."""
    DONE = "done"
    """It will not be started again."""


@dataclass(frozen=True)
class Run:
    """What all children of one run share."""

    topology: Topology
    run_dir: Path
    epoch: int = 0


@dataclass(frozen=True)
class Exit:
    """How a process ended: in order or not, and in words."""

    orderly: bool
    reason: str


@dataclass
class Ward(abc.ABC):
    """State that outlives a generation, and state of the present one (reset by `begin`).

    Times are monotonic seconds.
    """

    name: str
    group: Group
    state: State = State.WAITING
    generation: int = 0
    start_at: float = 0.0
    restarts: int = 0
    failures: int = 0
    last_exit: str = ""

    pid: int | None = None
    descriptor: int | None = None
    code: int | None = None
    """The exit code of the reaped process of an actor, as in `subprocess.Popen.returncode`."""
    begun_at: float = 0.0
    ready_at: float | None = None
    heard_at: float = 0.0
    doom: str = ""
    """Why the supervisor itself killed this generation."""
    dismissed: bool = False
    """It is stopped because of another's death or a shutdown, not for anything of its own."""
    fault: str = ""
    stopped: bool = False
    progress: Progress = field(default_factory=Progress)
    metrics: MetricsSnapshot = field(default_factory=MetricsSnapshot)
    isolates: set[str] = field(default_factory=set)
    _said_at: float | None = None

    @property
    @abc.abstractmethod
    def spec(self) -> ChildSpec | ServiceSpec: ...

    @property
    def restart(self) -> Restart:
        return self.spec.restart

    @property
    def alive(self) -> bool:
        """Whether it has a process that was not yet seen to end."""
        return self.descriptor is not None

    @property
    def settled(self) -> bool:
        """Whether those that start after it need not wait for it."""
        return self.state in {State.READY, State.DONE}

    def begin(self, run: Run, now: float) -> None:
        """Start the next generation. Raises what the start of its process raises."""
        self.generation += 1
        self.state = State.STARTING
        self.begun_at = self.heard_at = now
        self.ready_at = self._said_at = None
        self.doom = self.fault = ""
        self.dismissed = self.stopped = False
        self.progress = Progress()
        self.metrics = MetricsSnapshot()
        self.isolates = set()
        self.pid, self.descriptor = self._launch(run)

    def reap(self) -> None:
        """Collect the process that has ended."""
        self.code = self._collect()
        self.pid = self.descriptor = None

    @property
    @abc.abstractmethod
    def owes_last_words(self) -> bool:
        """Whether the process that ended should have said why, and that has not arrived yet."""

    @abc.abstractmethod
    def verdict(self) -> Exit:
        """How the reaped process ended, as far as is known."""

    def noted(self, note: str, now: float) -> bool:
        """What a starting service waits for. Returns whether it is time to say so in the log."""
        if note == self.progress.note:
            return False
        self.heard_at = now
        self.progress = Progress(note=note)
        if self._said_at is not None and now - self._said_at < NOTE_SECONDS:
            return False
        self._said_at = now
        return True

    def heard(self, progress: Progress, now: float) -> None:
        self.heard_at = now
        self.progress = progress
        if progress.metrics is not None:
            self.metrics = progress.metrics

    @abc.abstractmethod
    def terminate(self) -> None:
        """The second rung of the shutdown ladder."""

    @abc.abstractmethod
    def kill(self) -> None:
        """The last rung."""

    @abc.abstractmethod
    def _launch(self, run: Run) -> tuple[int | None, int]:
        """Returns the process id, if it is known yet, and the descriptor that tells its end."""

    @abc.abstractmethod
    def _collect(self) -> int | None: ...


@dataclass
class ActorWard(Ward):
    """An actor in a process of its own."""

    child: ChildSpec = field(kw_only=True)
    _process: ChildProcess | None = None
    _inbox: Path | None = None

    @property
    def spec(self) -> ChildSpec:
        return self.child

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _launch(self, run: Run) -> tuple[int, int]:
        topology = run.topology
        self._inbox = inbox_path(run.run_dir, self.name, self.generation)
        self._process = ChildProcess(
            Boot(
                name=self.name,
                generation=self.generation,
                epoch=run.epoch,
                run_dir=str(run.run_dir),
                control_endpoint=control_endpoint(run.run_dir),
                actor=self.child.actor,
                settings=self.child.settings,
                edges=topology.edges_of(self.name),
                messages=topology.messages,
                dead_letters=topology.dead_letters,
                crash_points=os.environ.get(CRASH_POINTS_VARIABLE, ""),
                clock=topology.clock,
                logging=topology.logging,
                wants_status=self.child.wants_status,
            )
        )
        return self._process.pid, self._process.sentinel

    def _collect(self) -> int | None:
        assert self._process is not None
        code = self._process.reap()
        self._process = None
        if self._inbox is not None:
            self._inbox.unlink(missing_ok=True)
        return code

    @property
    def owes_last_words(self) -> bool:
        killed = self.code is not None and self.code < 0
        return not (killed or self.fault or self.stopped)

    def verdict(self) -> Exit:
        if self.doom:
            return Exit(orderly=False, reason=self.doom)
        if self.code == 0 and self.stopped:
            return Exit(orderly=True, reason="in good order")
        reason = describe_exit(self.code)
        if self.fault:
            reason = f"{reason}: {self.fault}"
        elif self.code and self.code > 0 and self.ready_at is None:
            reason = f"{reason} before it was ready; standard error may say why"
        return Exit(orderly=False, reason=reason)


@dataclass
class ServiceWard(Ward):
    """A program looked after in the supervisor's own process."""

    service_spec: ServiceSpec = field(kw_only=True)
    _stopping: threading.Thread | None = None
    _end: int | None = None
    """A descriptor of ours in the place of the service's, which ends with `stop` and `kill`."""

    @property
    def spec(self) -> ServiceSpec:
        return self.service_spec

    def poll_ready(self) -> bool | str:
        """Ask the service, as in `Service`; it may have begun a process meanwhile."""
        answer = self.service_spec.service.poll_ready()
        self.pid = self.service_spec.service.pid or self.pid
        return answer

    def stop(self, seconds: float) -> None:
        """Stop it in a thread, so that it can be killed while its own `stop` still waits."""
        self._end, writer = os.pipe()
        self.descriptor = self._end
        self._stopping = threading.Thread(
            target=self._stop, args=(seconds, writer), name=f"stop-{self.name}", daemon=True
        )
        self._stopping.start()

    def _stop(self, seconds: float, writer: int) -> None:
        try:
            self.service_spec.service.stop(seconds)
        except Exception:
            log.exception(
                f"{self.name} cannot be stopped gracefully and is killed", actor=self.name
            )
            self.service_spec.service.kill()
        finally:
            os.close(writer)

    def terminate(self) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it; if a `stop` goes on, its end is the end, unless it was killed before in vain."""
        self.service_spec.service.kill()
        if self._stopping is not None:
            self._stopping = None
            return
        if self._end is not None:
            os.close(self._end)
        self._end, writer = os.pipe()
        os.close(writer)
        self.descriptor = self._end

    def _launch(
        self,
        run: Run,  # noqa: ARG002 - a service knows its own
    ) -> tuple[int | None, int]:
        service = self.service_spec.service
        descriptor = service.start()
        return service.pid, descriptor

    def _collect(self) -> int | None:
        self._stopping = None
        if self._end is not None:
            os.close(self._end)
            self._end = None
        return None

    @property
    def owes_last_words(self) -> bool:
        return False

    def verdict(self) -> Exit:
        reason = self.doom or self.service_spec.service.describe_exit()
        return Exit(orderly=self.state is State.ENDING and not self.doom, reason=reason)


def wards_of(topology: Topology) -> list[Ward]:
    """A ward for each child, in start order."""
    wards: list[Ward] = []
    for group in topology.groups:
        for child in group.children:
            if isinstance(child, ChildSpec):
                wards.append(ActorWard(child.name, group, child=child))
            else:
                wards.append(ServiceWard(child.name, group, service_spec=child))
    return wards
