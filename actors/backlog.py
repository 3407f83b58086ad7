"""A shard's work in the background: accounts to be purged, and parked events to be drained.

It is found in tables, so it goes on where a crash left it; a slice at a time, so that live work has
its turn in between.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from actors.store import resync
from actors.store.batch import Outcome
from actors.store.resync import Decode
from actors.store.writer import Writer
from engine.context import Context
from engine.timer import Timer

log = structlog.get_logger()

# Between two looks for work that others have ordered.
LOOK_SECONDS: Final = 1.0

Once = Callable[[Writer], Outcome | None]


class Backlog:
    """The background work of one shard.

    Args:
        context: of the shard.
        persist: does something with the shard's writer, however long PostgreSQL is away.
        take: takes in what a transaction did.
        owns: whether an account, or the author of a record, is this shard's.
        decode: makes changes of frames.
    """

    def __init__(
        self,
        context: Context,
        persist: Callable[[Once], Outcome | None],
        take: Callable[[Outcome], None],
        owns: Callable[[str], bool],
        decode: Decode,
    ) -> None:
        self._context = context
        self._persist = persist
        self._take = take
        self._owns = owns
        self._decode = decode
        self._purges: deque[str] = deque()
        self._drains: deque[str] = deque()
        self._step_timer: Timer | None = None
        self._look_timer: Timer | None = None

    def look(self) -> None:
        """Take up what is to be done for the accounts of this shard; again in a while."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._look_timer = self._context.after(LOOK_SECONDS, self.look)
        found: list[list[str]] = []

        def lists(writer: Writer) -> None:
            found[:] = writer.backlog(self._context.wait)

        self._persist(lists)
        purges, drains = found
        self._purges = deque(subject for subject in purges if self._owns(subject))
        self._drains = deque(did for did in drains if self._owns(did))
        self._soon()

    def _soon(self) -> None:
        if (self._purges or self._drains) and self._step_timer is None:
            self._step_timer = self._context.after(0, self._step)

    def _step(self) -> None:
        """Do one slice of one account; the next one when other work had its turn."""
        self._step_timer = None
        if self._purges:
            self._purge(self._purges[0])
        if self._drains:
            self._drain(self._drains[0])
        self._soon()

    def _purge(self, subject: str) -> None:
        wait = self._context.wait
        outcome = self._persist(lambda writer: writer.purge_slice(subject, wait))
        if outcome is not None:
            self._take(outcome)
        # A look may have renewed the queue meanwhile.
        if (outcome is None or subject in outcome.purged) and subject in self._purges:
            self._purges.remove(subject)
            log.info("everything that it wrote is removed", subject=subject)

    def _drain(self, did: str) -> None:
        wait = self._context.wait
        outcome = self._persist(lambda writer: resync.drain(writer, did, self._decode, wait))
        if outcome is not None:
            self._context.crash_point("shard.drained")
            self._take(outcome)
        elif did in self._drains:
            self._drains.remove(did)
            log.debug("its live events wait no longer", did=did)
