"""What ingest is given by the topology, and the parts that are made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from actors.capture_source import CaptureSource
from actors.shard_window import ShardWindow
from actors.store.checkpoint import Checkpoint, CheckpointError, CheckpointUnusable
from actors.store.database import connect
from actors.store.diskspace import DiskSpace
from actors.store.fence import Fence, Fenced
from actors.store.personal import Personal
from actors.store.session import Connection
from actors.upstream import Relay, Upstream
from config.settings import Settings
from config.source import Source
from engine.address import member

STATEMENT_SECONDS: Final = 5
"""Longest statement of the checkpoint: ingest would rather save later than stand still."""

# Of sysexits.h: broken data, unavailable, try again later, configuration.
DATA_ERROR: Final = 65
UNAVAILABLE: Final = 69
REPLACED: Final = 75
MISCONFIGURED: Final = 78

EXIT_CODES: Final[dict[type[Exception], int]] = {
    CheckpointError: UNAVAILABLE,
    CheckpointUnusable: MISCONFIGURED,
    Fenced: REPLACED,
}
"""What the run ends with when the checkpoint cannot be taken over."""


def exit_code(error: Exception) -> int:
    """Return what the run ends with for one of the errors above, or for a kind of them."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


@dataclass(frozen=True)
class IngestSetup:
    """What the topology gives to ingest.

    Attributes:
        settings: of the run.
        shards: their number; they are the members of the group `shard`.
        conninfo: of the database with the checkpoint.
        start_is_explicit: whether the start was given for this run, and so wins over the
            checkpoint.
        disk: a folder on the disk of the embedded database; None where that is not ours.
    """

    settings: Settings
    shards: int
    conninfo: str
    start_is_explicit: bool = False
    disk: Path | None = None

    def windows(self) -> list[ShardWindow]:
        """An empty window for each shard, in order."""
        limits = self.settings.ingest
        return [
            ShardWindow(
                member("shard", index),
                limits.window_frames,
                limits.window_bytes,
                limits.batch_frames,
                limits.batch_bytes,
            )
            for index in range(self.shards)
        ]

    def checkpoint(self, fence: Fence, source: Source) -> Checkpoint:
        """The checkpoint of a source; nothing is connected to yet."""
        return Checkpoint(source.host, self._opening(fence), fence)

    def personal(self, fence: Fence) -> Personal | None:
        """Whom a personal index is of; None for everybody. Nothing is connected to yet."""
        personal = self.settings.personal
        accounts = personal.parsed_accounts()
        if not accounts:
            return None
        return Personal(accounts, personal.max_accounts, self._opening(fence), fence)

    def _opening(self, fence: Fence) -> Callable[[], Connection]:
        return partial(
            connect,
            self.conninfo,
            application_name=fence.actor,
            connect_seconds=min(self.settings.database.connect_seconds, STATEMENT_SECONDS),
            settings={
                "statement_timeout": f"{STATEMENT_SECONDS}s",
                "lock_timeout": f"{STATEMENT_SECONDS}s",
            },
        )

    def upstream(self, source: Source) -> Upstream:
        """What is read."""
        limits = self.settings.ingest
        if source.kind == "capture":
            return CaptureSource(Path(source.address))
        return Relay(source.address, limits.max_frame_bytes, limits.stall_seconds)

    def disk_space(self) -> DiskSpace | None:
        """What watches the disk, where that is ours to watch."""
        if self.disk is None:
            return None
        embedded = self.settings.embedded
        return DiskSpace(
            self.disk,
            warn_below=embedded.warn_free_bytes,
            pause_below=embedded.min_free_bytes,
        )
