"""The end of reading: when what is in the windows is durable and saved, or will never be."""

import logging
from collections.abc import Callable
from typing import Final

from actors.intake import Intake
from actors.position import Position
from actors.store.checkpoint import CheckpointError

_log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 1.0
"""Nobody is restarted any more, but who is up may not have been announced yet."""


class Draining:
    """Looks whether ingest can stop.

    Args:
        intake, position: of ingest, which takes nothing in any more.
    """

    def __init__(self, intake: Intake, position: Position) -> None:
        self._intake = intake
        self._position = position
        self._alone_since = float("inf")

    def over(self, now: float, save: Callable[[], bool]) -> bool:
        """Whether there is nothing to wait for; `save` saves the checkpoint in a hurry."""
        self._intake.flush()
        if self._intake.empty:
            if not save():
                return False
            self._end_run()
            return True
        if not self._intake.abandoned:
            self._alone_since = float("inf")
            return False
        self._alone_since = min(self._alone_since, now)
        if now - self._alone_since < GRACE_SECONDS:
            return False
        _log.warning("no shard is left to take what is not durable yet: stopping")
        save()
        return True

    def _end_run(self) -> None:
        try:
            self._position.end_run()
        except CheckpointError as error:
            _log.warning("%s; the next start will take this end for a crash", error)
