"""Whose events a personal index takes: kept in memory, and up to date with the tables."""

import logging
from typing import Final

from actors.ingest_metrics import IngestMetrics
from actors.store.checkpoint import CheckpointError, CheckpointUnusable
from actors.store.personal import Personal
from actors.store.session import PASSING, DatabaseAway, DatabaseUnusable, TooSlow, one_line
from engine.context import Context

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
SLOWEST_LOOK: Final = 30.0
AGAIN_SECONDS: Final = 60.0
SHARE: Final = 50.0
"""After each look there is a rest of so many times its length: it is ingest that waits for it."""

_PASSES: Final = (DatabaseAway, TooSlow, *PASSING)


class Membership:
    """The accounts whose events are taken.

    Args:
        table: what they are by the tables.
        context: of ingest.
        metrics: of ingest.

    Attributes:
        members: their DIDs, always the same object.
    """

    def __init__(self, table: Personal, context: Context, metrics: IngestMetrics) -> None:
        self.members: set[str] = set()
        self._table = table
        self._context = context
        self._metrics = metrics
        self._failures = 0
        self._full = False
        self._next = self._again_at = float("-inf")

    def begin(self, outage_seconds: float) -> None:
        """Know all of them, before the first event; the database may be away for an outage.

        Raises CheckpointError after that time, CheckpointUnusable, and Fenced.
        """
        clock, wait = self._context.clock, self._context.wait
        deadline = clock.monotonic() + outage_seconds
        while True:
            try:
                self.members |= self._table.load()
                while self._look(clock.monotonic()):
                    wait(0)
            except _PASSES as error:
                self._table.close()
                if clock.monotonic() > deadline:
                    raise CheckpointError(_cannot(error)) from error
                wait(1.0)
            except DatabaseUnusable as error:
                raise CheckpointUnusable(_cannot(error)) from error
            else:
                _log.info("personal: indexing %d accounts", len(self.members))
                return

    def look(self) -> None:
        """Take in whom the tables name, and let go whom they name no more, if it is time to.

        While the database is away everything stays as it is. Raises Fenced.
        """
        clock = self._context.clock
        began = clock.monotonic()
        if began < self._next:
            return
        try:
            more = self._look(began)
        except (*_PASSES, DatabaseUnusable) as error:
            self._table.close()
            self._failures += 1
            self._next = began + min(SLOWEST_LOOK, 2.0 ** min(self._failures, 5))
            log = _log.warning if self._failures == 1 else _log.debug
            log("%s; trying again until it can", _cannot(error))
            return
        self._failures = 0
        took = clock.monotonic() - began
        self._next = began if more else began + max(LOOK_SECONDS, SHARE * took)

    def close(self) -> None:
        """Let the database go."""
        self._table.close()

    def _look(self, now: float) -> bool:
        """Look once; whether there is more to take in."""
        crash_point = self._context.crash_point
        change = self._table.new(len(self.members))
        # First here, then there: whose repository is ordered has no event left out after it.
        self.members.update(change.new)
        crash_point("personal.taken_in")
        self._table.enter(change.new)
        crash_point("personal.entered")
        if now >= self._again_at:
            self._again_at = now + AGAIN_SECONDS
            self._table.order_again()
        gone = self._table.leave()
        crash_point("personal.left")
        self.members.difference_update(gone)
        self._metrics.members.set(len(self.members))
        self._tell(change.new, gone, full=change.full)
        return change.more

    def _tell(self, new: list[str], gone: list[str], *, full: bool) -> None:
        if new or gone:
            _log.info(
                "personal: %d accounts more, %d no longer, %d in all",
                *(len(new), len(gone), len(self.members)),
            )
        if full and not self._full:
            _log.warning(
                "personal.max_accounts (%d) is reached: some who are followed are not indexed",
                len(self.members),
            )
        self._full = full


def _cannot(error: Exception) -> str:
    return f"whom this index is of cannot be read or written now: {one_line(error)}"
