"""The report of a run that ends by itself: when everything is done that it brought about."""

import logging
from typing import Any

from actors.ingest_metrics import IngestMetrics
from actors.position import Position
from actors.store.checkpoint import CheckpointError
from actors.summary import summarise, timed

_log = logging.getLogger(__name__)


class Completion:
    """Makes the report.

    Args:
        position, metrics: of ingest.
    """

    def __init__(self, position: Position, metrics: IngestMetrics) -> None:
        self._position = position
        self._metrics = metrics
        self._failed = False

    def report(self, seconds: float) -> dict[str, Any] | None:
        """Return the report of `seconds` of work; None while other actors have work left.

        It is asked for when everything that was read is durable, and again until it is there.
        """
        try:
            if self._position.outbox_depth() > 0:
                return None
            summary = summarise(self._position.tallies(), self._metrics.drops())
        except CheckpointError as error:
            log = _log.debug if self._failed else _log.warning
            log("%s; trying again until it can", error)
            self._failed = True
            return None
        return timed(
            summary,
            checkpoint=self._position.saved or 0,
            handed=int(self._metrics.events.value),
            seconds=seconds,
        )
