"""Reads lists of accounts, a page at a time, for backfills of all that a server has.

Which lists that are, and how far each was read, stands in a table (see `store/listings.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from actors.fetching.asking import Asking, Item, Listed, Unlisted
from actors.fetching.policy import Policy
from actors.lasting_session import LastingSession
from actors.outbound import OutboundError
from actors.outbound import target as targets
from actors.store import listings
from actors.store.listings import RELAY
from engine.context import Context
from engine.iothread import IoThread

log = structlog.get_logger("pds_fetcher")

LOOK_SECONDS: Final = 1.0


def trusted(relay: str) -> list[str]:
    """The relay as the client trusts it, if that can ask it at all."""
    try:
        targets.parse(relay)
    except OutboundError:
        return []
    return [relay]


class Listing:
    """The actor's side of it.

    Args:
        context: the actor's.
        session: the actor's.
        io: where questions are asked.
        asking: asks them.
        policy: when one is asked again.
        relay: the URL of the run's relay.
        filled: called when something new is in the queue.
    """

    def __init__(
        self,
        context: Context,
        session: LastingSession,
        io: IoThread[Item],
        asking: Asking,
        policy: Policy,
        relay: str,
        filled: Callable[[], None],
    ) -> None:
        self._context = context
        self._session = session
        self._io = io
        self._asking = asking
        self._policy = policy
        self._relay = relay
        self._filled = filled
        self._asked: listings.Due | None = None
        metrics = context.metrics
        self._accounts = metrics.counter("listed_accounts_total", "Accounts of lists")
        self._skipped = metrics.counter(
            "listed_skipped_total", "Accounts of lists that are not active, or have no DID"
        )

    def start(self) -> None:
        """Begin, and go on."""
        self._look()
        self._context.after(LOOK_SECONDS, self.start)

    def _look(self) -> None:
        """Ask for the next page, where one is wanted and none is on its way."""
        if self._asked is not None:
            return
        due = self._asked = self._session.attempt(listings.due)
        if due is None:
            return
        url = self._relay if due.name == RELAY else due.name
        # A cursor means nothing to another server.
        cursor = due.cursor if due.url == url else None
        self._io.submit(partial(self._asking.accounts, url, cursor))

    def take(self, item: Listed | Unlisted) -> None:
        """Take in what came of it."""
        due, self._asked = self._asked, None
        assert due is not None, "nothing was asked"
        fence = self._session.fence
        if isinstance(item, Listed):
            self._accounts.add(len(item.dids))
            self._skipped.add(item.skipped)
            self._context.crash_point("fetcher.listed")
            self._session.attempt(
                partial(
                    listings.turn,
                    fence=fence,
                    name=due.name,
                    url=item.url,
                    dids=item.dids,
                    cursor=item.cursor,
                )
            )
            self._filled()
            self._look()
            return
        after = self._policy.after(item.failure, due.attempts)
        log.warning(
            "cannot read a list of accounts" + ("" if after.seconds is None else ", trying again"),
            url=item.url,
            reason=item.failure.reason,
            attempts=after.attempts,
        )
        self._session.attempt(
            partial(
                listings.fail,
                fence=fence,
                name=due.name,
                reason=item.failure.reason,
                attempts=after.attempts,
                seconds=after.seconds,
            )
        )
