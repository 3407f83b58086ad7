"""The few figures that an operator watches, read from the status of the system.

The names of the metrics are here because several write or read them: ingest sets them, the monitor
and the live view read them.
"""

from typing import Final

import msgspec

from engine.status import ChildStatus, Status

INGEST: Final = "ingest"
EVENTS: Final = "ingest_events_total"
"""Counter: events read from the source."""
LAG: Final = "ingest_lag_seconds"
"""Gauge: how far the index is behind, in seconds. The age of the oldest event that is not durable;
where all that came is durable, the age at which the last event came, and the time without the
source on top; UNKNOWN_LAG as long as there was no event."""
UNKNOWN_LAG: Final = -1.0
CONNECTED: Final = "ingest_connected"
"""Gauge: 1 while the source is open (a capture: until its end)."""
CHECKPOINT: Final = "ingest_checkpoint"
"""Gauge: the saved cursor; every event up to it is durable."""

INGEST_DROPS: Final = "ingest_drops_total"
"""Counter, by reason: frames that ingest left out."""
DROPS: Final = "drops_total"
"""Counter, by reason: what the shards left out."""
COMMITS: Final = "commits_total"
REPLAYED: Final = "replayed_total"
DISCONTINUOUS: Final = "discontinuous_total"
OPERATIONS: Final = "operations_total"
"""Counter, by table and action: operations applied."""
USERS_CREATED: Final = "users_created_total"


class Vitals(msgspec.Struct, frozen=True):
    """Events read so far, lag in seconds (None: nothing to tell it by), and the saved cursor."""

    events: int
    lag_seconds: float | None
    connected: bool
    checkpoint: int
    restarts: int


def vitals(status: Status) -> Vitals:
    """The figures at this moment; zeros as long as ingest has not reported."""
    restarts = sum(child.restarts for child in status.children)
    ingest = next((child for child in status.children if child.name == INGEST), None)
    if ingest is None:
        return Vitals(0, None, connected=False, checkpoint=0, restarts=restarts)
    lag = _gauge(ingest, LAG)
    return Vitals(
        events=int(ingest.metrics.value(EVENTS)),
        lag_seconds=None if lag is None or lag < 0 else lag,
        connected=bool(ingest.metrics.value(CONNECTED)) and ingest.state == "ready",
        checkpoint=int(ingest.metrics.value(CHECKPOINT)),
        restarts=restarts,
    )


def _gauge(child: ChildStatus, name: str) -> float | None:
    known = any(family.name == name for family in child.metrics.families)
    return child.metrics.value(name) if known else None
