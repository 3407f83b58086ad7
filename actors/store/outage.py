"""One outage of PostgreSQL, as one who waits for its end tells it: one line at each end."""

from collections.abc import Callable
from typing import Final

import structlog

# Seconds between attempts: a part of how long it has lasted, within bounds.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
_GROWTH: Final = 0.5

log = structlog.get_logger()


class Outage:
    """Whether attempts fail, since when, and when to try again.

    Args:
        begins: what the log says, once, when the first attempt fails; with the reason.
        ends: what it says when one succeeds again; with the seconds that it lasted.
        now: the clock, in monotonic seconds.
        first: the shortest pause.
        longest: the longest.
    """

    def __init__(
        self,
        begins: str,
        ends: str,
        now: Callable[[], float],
        *,
        first: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
    ) -> None:
        self._begins = begins
        self._ends = ends
        self._now = now
        self._first = first
        self._longest = longest
        self._since: float | None = None

    @property
    def goes_on(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        """How long it has lasted, 0 when there is none."""
        return 0.0 if self._since is None else self._now() - self._since

    def failed(self, reason: object) -> float:
        """An attempt failed; returns how many seconds to wait before the next."""
        if self._since is None:
            self._since = self._now()
            log.warning(self._begins, reason=str(reason))
        return min(max(self._first, self.seconds * _GROWTH), self._longest)

    def succeeded(self) -> None:
        """An attempt succeeded: if there was an outage, it is over."""
        if self._since is not None:
            log.info(self._ends, seconds=round(self.seconds, 1))
            self._since = None
