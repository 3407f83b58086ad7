"""How quickly backfills may write: so many records a second, over all of them."""

import asyncio
from collections.abc import Awaitable, Callable


class Pacing:
    """Waits, in the I/O thread, until it is the turn of so many records.

    Args:
        rate: records a second.
        now: seconds.
        sleep: waits.
    """

    def __init__(
        self,
        rate: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._now = now
        self._sleep = sleep
        self._next = 0.0

    async def __call__(self, records: int) -> None:
        """Take the next turn."""
        now = self._now()
        turn = max(self._next, now)
        self._next = turn + records / self._rate
        if turn > now:
            await self._sleep(turn - now)
