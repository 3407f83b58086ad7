"""Has what labelers' readers deliver written, in as few transactions as PostgreSQL takes."""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from actors.atproto.label import Refusal
from actors.labeler_reader import Received
from actors.lasting_session import LastingSession
from actors.store.labels import Cursor, LabelBatch, LabelWriter, Written
from actors.store.session import REFUSALS, Connection, TooSlow, one_line
from engine.context import Context
from engine.metrics import COUNTS

log = structlog.get_logger("label_client")

_OUTCOMES: Final = {
    "applied": ("labels_applied_total", "Labels applied"),
    "negated": ("labels_negated_total", "Negations applied"),
    "expired": ("labels_expired_before_total", "Labels that had expired before they came"),
    "outdated": ("labels_outdated_total", "Labels that came again, or after a newer one"),
}


class LabelRecorder:
    """Writes frames of labels, and counts what became of them.

    Args:
        context: the actor's.
        session: its connection.
        moved: called with each batch that was written, and what became of it.

    Attributes:
        writer: on the connection as it is now.
    """

    writer: LabelWriter

    def __init__(
        self,
        context: Context,
        session: LastingSession,
        moved: Callable[[LabelBatch, Written], None],
    ) -> None:
        self._context = context
        self._session = session
        self._moved = moved
        metrics = context.metrics
        self._outcomes = {
            name: metrics.counter(metric, meaning) for name, (metric, meaning) in _OUTCOMES.items()
        }
        self._sizes = metrics.histogram("label_batch", "Labels in a transaction", buckets=COUNTS)

    def prepare(self, connection: Connection) -> None:
        """Make a writer on a new connection."""
        self.writer = LabelWriter(
            connection,
            self._session.fence,
            crash_point=lambda name: self._context.crash_point(f"label_client.{name}"),
        )

    def record(self, received: Sequence[Received]) -> None:
        """Write frames, all at once, or the halves where PostgreSQL refuses that."""
        batch = batch_of(received)
        try:
            self._apply(batch, parted=True)
        except (TooSlow, *REFUSALS) as error:
            middle = len(received) // 2
            if middle:
                self.record(received[:middle])
                self.record(received[middle:])
            else:
                self._record_labels(batch, error)

    def refused(self, reason: Refusal, amount: int) -> None:
        """Count labels that were refused."""
        self._context.metrics.counter(
            "labels_refused_total", "Labels that were refused", reason=str(reason)
        ).add(amount)

    def _record_labels(self, batch: LabelBatch, error: Exception) -> None:
        """Write the labels of one frame one by one; one that PostgreSQL refuses is left out."""
        log.warning("the labels of a frame are written one by one", why=one_line(error))
        for label in batch.labels:
            try:
                self._apply(LabelBatch([label]))
            except REFUSALS as refusal:
                self.refused(Refusal.DATABASE_REFUSED, 1)
                log.warning(
                    "PostgreSQL refuses a label: it is left out",
                    labeler=label.src,
                    subject=label.uri,
                    value=label.val,
                    why=one_line(refusal),
                )
        self._apply(LabelBatch([], batch.cursors))

    def _apply(self, batch: LabelBatch, *, parted: bool = False) -> None:
        """Write a batch in one transaction. Raises REFUSALS, and with `parted` TooSlow."""
        now = self._context.clock.now()
        written = self._session.attempt(
            lambda _connection: self.writer.write(batch, int(now * 1_000_000)), parted=parted
        )
        self._sizes.observe(len(batch.labels))
        for name, counter in self._outcomes.items():
            counter.add(written.outcomes[name])
        for reason, amount in written.refused.items():
            self.refused(reason, amount)
        newest: dict[str, int] = {}
        for label in batch.labels:
            newest[label.src] = max(newest.get(label.src, 0), label.created)
        for did, created in newest.items():
            self._context.metrics.gauge(
                "label_lag_seconds", "Age of a labeler's last label when written", labeler=did
            ).set(max(0.0, now - created / 1_000_000))
        self._moved(batch, written)


def batch_of(received: Sequence[Received]) -> LabelBatch:
    """What several frames hold, as one batch."""
    batch = LabelBatch()
    for item in received:
        batch.labels += item.labels
        if item.seq is not None and item.seq != item.after:
            before = batch.cursors.get(item.did)
            after = item.after if before is None else before.after
            batch.cursors[item.did] = Cursor(item.endpoint, after, item.seq)
    return batch
