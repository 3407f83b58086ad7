"""The figures of ingest: kept in the hot path, or measured when a snapshot is taken."""

from collections.abc import Sequence
from typing import Final

from actors import vitals
from actors.atproto.events import Kind
from actors.shard_window import ShardWindow
from engine.metrics import Counter, Metrics

DROPS: Final = "ingest_drops_total"


class IngestMetrics:
    """What ingest counts.

    `events` counts what was handed to shards, `frames` all that came by kind, `repeated` events
    that had come before, `skipped` those older than the start that was asked for, `foreign` those
    of accounts that a personal index is not of.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        counter, gauge = metrics.counter, metrics.gauge
        self.events = counter(vitals.EVENTS, "Events handed to shards")
        self.bytes = counter("ingest_bytes_total", "Bytes of the frames handed to shards")
        self.frames = {
            kind: counter("ingest_frames_total", "Frames received, by kind", kind=str(kind))
            for kind in Kind
        }
        self.repeated = counter("ingest_repeated_total", "Events that the source sent again")
        self.skipped = counter("ingest_skipped_total", "Events older than the start asked for")
        self.foreign = counter(
            "ingest_foreign_total", "Events of accounts that a personal index is not of"
        )
        self.members = gauge("personal_accounts", "Accounts that a personal index is of")
        self.connections = counter("ingest_connections_total", "Connections that were opened")
        self.failovers = counter("ingest_failovers_total", "Times another source took over")
        self.gaps = counter("ingest_gaps_total", "Times the source no longer held what followed")
        self.backpressure = counter(
            "ingest_backpressure_seconds_total", "Time for which a full window held the source"
        )
        self.connected = gauge(vitals.CONNECTED, "1 while the source is open")
        self.paused = gauge("ingest_paused", "1 while a disk that is nearly full holds the source")
        self.lag = gauge(
            vitals.LAG,
            "Age in seconds of the oldest event that is not durable; with none, the age at which"
            " the last one came, and the time without the source on top",
        )
        self.checkpoint = gauge(vitals.CHECKPOINT, "The saved cursor")
        self.lag.set(vitals.UNKNOWN_LAG)
        self._drops: dict[str, Counter] = {}

    def drop(self, reason: str, count: int = 1) -> None:
        """Count frames that are left out."""
        counter = self._metrics.counter(DROPS, "Frames left out, by reason", reason=reason)
        self._drops[reason] = counter
        counter.add(count)

    def drops(self) -> dict[str, int]:
        """Frames left out so far, by reason."""
        return {reason: int(counter.value) for reason, counter in self._drops.items()}

    def ending(self, how: str) -> None:
        """Count the end of a connection."""
        self._metrics.counter(
            "ingest_disconnects_total", "Connections that ended, by how", how=how
        ).add()

    def measure(self, windows: Sequence[ShardWindow]) -> None:
        """Set the gauges of the windows."""
        gauge = self._metrics.gauge
        for window in windows:
            gauge("ingest_window_frames", "Frames not acknowledged", shard=window.address).set(
                window.unacked_frames
            )
            gauge(
                "ingest_window_bytes", "Bytes of frames not acknowledged", shard=window.address
            ).set(window.unacked_bytes)
