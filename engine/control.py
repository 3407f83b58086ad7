"""What the supervisor and its children tell each other on the control lane.

The lane has a socket of its own in every process, so that none of this ever waits behind data.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from engine.metrics import MetricsSnapshot

PROGRESS_SECONDS: Final = 1.0
"""An actor's own loop reports Progress at least this often, idle or not; a silence is a stall."""


class ControlMessage(msgspec.Struct, frozen=True, tag=True):
    """The base of every control message."""


class Ready(ControlMessage, frozen=True):
    """Child: my inbox is bound and `on_start` has returned; announce me to my peers."""

    pid: int


class Progress(ControlMessage, frozen=True):
    """Child: my own loop turns (or my long work goes on, as `note` says).

    `handled` counts the messages received by this generation; `backlog` is what lies unhandled in
    the process; `waiting_ms` is the time spent so far waiting for credit, by receiver.
    `metrics` may be left out of a report that was sent between two snapshots.
    """

    handled: int = 0
    backlog: int = 0
    note: str = ""
    waiting_ms: dict[str, int] = {}
    metrics: MetricsSnapshot | None = None


class Isolating(ControlMessage, frozen=True):
    """Child: I redeliver one by one to `peer` (on), or am through with it (off).

    Deaths of `peer` while it is on do not count against the intensity of its group.
    """

    peer: str
    on: bool


class Finish(ControlMessage, frozen=True):
    """Child: the job of the whole run is done; shut down in order, exit code 0."""

    report: dict[str, Any]


class Fail(ControlMessage, frozen=True):
    """Child: the run cannot go on and a restart would not help; shut down with this exit code."""

    message: str
    exit_code: int


class Fault(ControlMessage, frozen=True):
    """Child: I am about to end by an unexpected exception, named in one line."""

    reason: str


class Stopped(ControlMessage, frozen=True):
    """Child: I stop in good order; my exit is not a crash."""


class PeerUp(ControlMessage, frozen=True):
    """Supervisor: this peer is ready; its inbox is bound to `endpoint`."""

    name: str
    generation: int
    endpoint: str


class PeerDown(ControlMessage, frozen=True):
    """Supervisor: this generation of a peer is gone; not `crashed` if it stopped in order."""

    name: str
    generation: int
    crashed: bool


class Drain(ControlMessage, frozen=True):
    """Supervisor: finish what you hold and stop, within `deadline_seconds`."""

    deadline_seconds: float


class Stop(ControlMessage, frozen=True):
    """Supervisor: stop now."""


class StatusSnapshot(ControlMessage, frozen=True):
    """Supervisor, each second to children that want it: the Status of the system as JSON."""

    status: bytes


FromChild = Ready | Progress | Isolating | Finish | Fail | Fault | Stopped
ToChild = PeerUp | PeerDown | Drain | Stop | StatusSnapshot

_encoder = msgspec.msgpack.Encoder()
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)


def encode(message: ControlMessage) -> bytes:
    return _encoder.encode(message)


def decode_from_child(data: bytes | memoryview) -> FromChild:
    """Raises msgspec.DecodeError when `data` is none of FromChild."""
    return _from_child.decode(data)


def decode_to_child(data: bytes | memoryview) -> ToChild:
    """Raises msgspec.DecodeError when `data` is none of ToChild."""
    return _to_child.decode(data)


def inbox_path(run_dir: str | Path, name: str, generation: int) -> Path:
    """The socket of one generation of an actor, so that no ghost shares it with its successor."""
    return Path(run_dir) / f"{name}.{generation}"


def inbox_endpoint(run_dir: str | Path, name: str, generation: int) -> str:
    return f"ipc://{inbox_path(run_dir, name, generation)}"


def control_endpoint(run_dir: str | Path) -> str:
    return f"ipc://{Path(run_dir) / 'control'}"
