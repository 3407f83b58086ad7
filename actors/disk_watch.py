"""Looks now and then at the disk that the embedded database fills."""

import logging
from typing import Final

from actors.store.diskspace import DiskSpace
from engine.metrics import Gauge

_log = logging.getLogger(__name__)

DISK_SECONDS: Final = 5.0


class DiskWatch:
    """Whether there is room to take anything in.

    Args:
        disk: None where it is not ours to watch.
        paused: 1 while there is none.
    """

    def __init__(self, disk: DiskSpace | None, paused: Gauge) -> None:
        self._disk = disk
        self._paused = paused
        self._next = float("-inf")

    @property
    def must_pause(self) -> bool:
        """Whether the last look found too little."""
        return self._disk is not None and self._disk.must_pause

    def look(self, now: float) -> bool:
        """Look if it is time to (`now` is monotonic); True where there is room again."""
        disk = self._disk
        if disk is None or now < self._next:
            return False
        self._next = now + DISK_SECONDS
        was_paused = disk.must_pause
        try:
            disk.check()
        except OSError as error:
            _log.warning("the free space of %s cannot be measured: %s", disk.folder, error)
        self._paused.set(float(disk.must_pause))
        return was_paused and not disk.must_pause
