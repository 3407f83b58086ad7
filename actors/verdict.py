"""Whether the system is well, and whether it may serve: what /health and /ready answer."""

from typing import Final

import msgspec

from actors.vitals import vitals
from engine.status import ChildStatus, Status

STATUS_SECONDS: Final = 5.0
"""The supervisor sends a status each second; one this old means that the supervisor is stuck."""


class Health(msgspec.Struct, frozen=True):
    """`problems` are sentences that each name an actor; none: all is well."""

    healthy: bool
    problems: list[str]
    up_seconds: float
    restarts: int


class Readiness(msgspec.Struct, frozen=True):
    """`lag_seconds` is None as long as there was no event to tell it by."""

    ready: bool
    problems: list[str]
    lag_seconds: float | None
    connected: bool
    database: str


class Received(msgspec.Struct, frozen=True):
    """The last status and how long ago it came; None as long as none has."""

    status: Status | None
    age_seconds: float


def health(received: Received, *, silent_seconds: float) -> Health:
    """Well is: every child is up, and each actor's own loop has turned within that time."""
    problems = _supervision(received)
    status = received.status
    for child in status.children if status else ():
        problems += _child(child, silent_seconds)
    return Health(
        healthy=not problems,
        problems=problems,
        up_seconds=round(status.up_seconds, 1) if status else 0.0,
        restarts=vitals(status).restarts if status else 0,
    )


def readiness(received: Received, *, database_problem: str, lag_limit: float) -> Readiness:
    """Ready is: running, the database answers, and the index is not further behind than that."""
    problems = _supervision(received)
    if database_problem:
        problems.append(f"database: {database_problem}")
    seen = vitals(received.status) if received.status else None
    lag = seen.lag_seconds if seen else None
    if lag is not None and lag > lag_limit:
        problems.append(f"ingest: {lag:.0f} s behind, and {lag_limit:.0f} s are the limit")
    if seen and lag is None and not seen.connected:
        problems.append("ingest: the source has not been reached yet")
    return Readiness(
        ready=not problems,
        problems=problems,
        lag_seconds=lag,
        connected=seen.connected if seen else False,
        database="unreachable" if database_problem else "reachable",
    )


def _supervision(received: Received) -> list[str]:
    if received.status is None:
        return ["supervisor: no status has come yet"]
    if received.age_seconds > STATUS_SECONDS:
        return [f"supervisor: silent for {received.age_seconds:.0f} s"]
    if received.status.phase != "running":
        return [f"supervisor: the system is {received.status.phase}"]
    return []


def _child(child: ChildStatus, silent_seconds: float) -> list[str]:
    if child.state == "done":
        return []
    if child.state != "ready":
        again = (
            f", restarts in {child.restart_in_seconds:.1f} s" if child.restart_in_seconds else ""
        )
        why = f" (last exit: {child.last_exit})" if child.last_exit else ""
        return [f"{child.name}: {child.state}{again}{why}"]
    silent = child.silent_seconds or 0.0
    if not child.service and silent > silent_seconds:
        return [f"{child.name}: no progress for {silent:.0f} s"]
    return []
