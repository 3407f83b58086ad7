"""Watches the free space of the data folder's disk, so that PostgreSQL never meets a full one.

PostgreSQL survives a full disk only by a crash and a recovery that needs space itself. So there are
two thresholds: below the first a warning is logged, below the second the intake has to pause.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

__all__ = ["DiskSpace", "Space", "free_bytes", "judge"]

_log = logging.getLogger(__name__)
# Once intake has paused, this much more than the threshold must be free before it goes on:
# otherwise it would stop and go with every checkpoint that frees a segment of the log.
_MARGIN: Final = 1.1


# With less than this PostgreSQL cannot write what it needs to start.
FULL_BYTES: Final = 64 * 1024


class Space(Enum):
    """What the free space means."""

    PLENTY = "plenty"
    LOW = "low"  # warn
    EXHAUSTED = "exhausted"  # pause the intake


def judge(free: int, *, warn_below: int, pause_below: int, before: Space) -> Space:
    """What `free` bytes mean, given what was found before."""
    if free < pause_below or (before is Space.EXHAUSTED and free < pause_below * _MARGIN):
        return Space.EXHAUSTED
    return Space.LOW if free < warn_below else Space.PLENTY


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged user may still write below `folder`. Raises OSError."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class DiskSpace:
    """The state of one disk. Each change is logged once, with what to do.

    Args:
        folder: any folder on the disk; it must exist when `check` is called.
        warn_below, pause_below: the thresholds in bytes; 0 switches one off.
        measure: takes the folder and returns its free bytes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        warn_below: int,
        pause_below: int,
        measure: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.folder = folder
        self.free = 0
        self.space = Space.PLENTY
        self._warn_below = warn_below
        self._pause_below = pause_below
        self._measure = measure

    def check(self) -> Space:
        """Measure now. Raises OSError when the folder cannot be measured."""
        before = self.space
        self.free = self._measure(self.folder)
        self.space = judge(
            self.free,
            warn_below=self._warn_below,
            pause_below=self._pause_below,
            before=before,
        )
        if self.space is not before:
            self._tell(before)
        return self.space

    @property
    def must_pause(self) -> bool:
        """Whether the last check found too little to take anything in."""
        return self.space is Space.EXHAUSTED

    def _tell(self, before: Space) -> None:
        megabytes = self.free // 1_000_000
        if self.space is Space.EXHAUSTED:
            _log.error(
                "intake pauses: %d MB are free on the disk of %s, fewer than the %d MB of"
                " min_free_bytes; it goes on when there are more",
                megabytes,
                self.folder,
                self._pause_below // 1_000_000,
            )
            return
        if before is Space.EXHAUSTED:
            _log.info("intake goes on: %d MB are free on the disk of %s", megabytes, self.folder)
        if self.space is Space.LOW:
            _log.warning(
                "the disk of %s fills up: %d MB are free; intake pauses below %d MB",
                self.folder,
                megabytes,
                self._pause_below // 1_000_000,
            )
