"""One thing that is being fetched, from the first question to the last ack."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from actors.fetching.asking import (
    SLICES_UNDER_WAY,
    Account,
    Admission,
    Deliver,
    Failed,
    Got,
    ReadWhole,
    Whole,
)
from actors.store.incomplete import BACKFILL_LAST, Due

_PROFILE: Final = "app.bsky.actor.profile/self"


@dataclass(slots=True)
class Job:
    """It belongs to the actor; only `room` and `admission` are shared with the I/O thread.

    `rank` is that with which it was begun, at the second `began`. `asks`: its server is busy with
    it. `read`: it has been read before its live events wait. `parked`: they do. `unacked` are
    slices that were handed on and are not written, `result` how the asking ended.
    """

    number: int
    due: Due
    rank: int
    account: Account
    host: str
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLICES_UNDER_WAY))
    admission: Admission = field(default_factory=Admission)
    began: float = 0.0
    asks: bool = False
    read: bool = False
    parked: bool = False
    unacked: int = 0
    result: Got | Whole | ReadWhole | Failed | None = None

    @property
    def patient(self) -> bool:
        """Whether others have precedence."""
        return self.rank == BACKFILL_LAST

    def is_late(self, since: float) -> bool:
        """Whether it has waited for its first answer since then; what comes in a whole repository
        may well take its time.
        """
        waits = self.result is None and not self.parked and not self.patient
        return waits and self.began < since

    @property
    def path(self) -> str:
        """Of a single record: where it is in its repository."""
        return self.due.key.split("/", 3)[3] if "/" in self.due.key else _PROFILE


async def release(jobs: Sequence[Job], _deliver: Deliver) -> None:
    """Let the next slice of each come; runs in the I/O thread, where slices are made."""
    for job in jobs:
        job.room.release()
