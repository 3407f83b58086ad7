"""The whole system at one moment, for the live view, the log line and the monitor."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.child import ChildSpec
from engine.metrics import MetricsSnapshot
from engine.process import resident_bytes
from engine.ward import Ward


class ChildStatus(msgspec.Struct, frozen=True):
    """One child. Durations are seconds, memory is bytes; what was never known is None or empty.

    Of a service, `pid` and `memory_bytes` are those of its first process alone.

    `state` is waiting, starting, ready, ending or done; `silent_seconds` is the time since its last
    sign of progress; `waiting_ms` the time its present generation waited for credit, by receiver.
    """

    name: str
    group: str
    service: bool
    state: str
    generation: int
    pid: int | None
    up_seconds: float | None
    silent_seconds: float | None
    restarts: int
    restart_in_seconds: float | None
    last_exit: str
    handled: int
    backlog: int
    note: str
    waiting_ms: dict[str, int]
    isolates: tuple[str, ...]
    memory_bytes: int
    metrics: MetricsSnapshot


class Status(msgspec.Struct, frozen=True):
    """`phase` is starting, running or stopping; `time` unix seconds."""

    time: float
    up_seconds: float
    phase: str
    epoch: int
    stop_reason: str
    children: tuple[ChildStatus, ...]

    @property
    def ready(self) -> bool:
        """Whether everything is up and nothing is about to stop."""
        return self.phase == "running" and all(
            child.state in {"ready", "done"} for child in self.children
        )

    def child(self, name: str) -> ChildStatus:
        """Raises KeyError when there is none of this name."""
        for child in self.children:
            if child.name == name:
                return child
        raise KeyError(name)

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> Status:
        """Raises msgspec.DecodeError when `data` is not a status as JSON."""
        return msgspec.json.decode(data, type=Status)


def child_status(ward: Ward, now: float) -> ChildStatus:
    waiting = not ward.alive and ward.state.value == "waiting" and ward.start_at > now
    return ChildStatus(
        name=ward.name,
        group=ward.group.name,
        service=not isinstance(ward.spec, ChildSpec),
        state=ward.state.value,
        generation=ward.generation,
        pid=ward.pid,
        up_seconds=None if ward.ready_at is None or not ward.alive else now - ward.ready_at,
        silent_seconds=now - ward.heard_at if ward.alive else None,
        restarts=ward.restarts,
        restart_in_seconds=ward.start_at - now if waiting else None,
        last_exit=ward.last_exit,
        handled=ward.progress.handled,
        backlog=ward.progress.backlog,
        note=ward.progress.note,
        waiting_ms=ward.progress.waiting_ms,
        isolates=tuple(sorted(ward.isolates)),
        memory_bytes=0 if ward.pid is None else resident_bytes(ward.pid),
        metrics=ward.metrics,
    )


def children_status(wards: Iterable[Ward], now: float) -> tuple[ChildStatus, ...]:
    return tuple(child_status(ward, now) for ward in wards)
