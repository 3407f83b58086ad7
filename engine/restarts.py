"""When a child is restarted, together with whom, how soon, and when it is no use any more.

Pure: time comes in as an argument and chance as a seeded generator.
"""

import enum
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


class Restart(enum.Enum):
    """Which exits of a child are followed by a restart."""

    PERMANENT = "permanent"
    """Every exit."""
    TRANSIENT = "transient"
    """Crashes only; a child that stops in order is done."""
    TEMPORARY = "temporary"
    """None."""

    def wanted_after(self, *, crashed: bool) -> bool:
        return self is Restart.PERMANENT or (self is Restart.TRANSIENT and crashed)


class Strategy(enum.Enum):
    """Who of a group is restarted when one of it dies."""

    ONE_FOR_ONE = "one_for_one"
    """It alone."""
    REST_FOR_ONE = "rest_for_one"
    """It and those started after it, as their state depends on it."""
    ONE_FOR_ALL = "one_for_all"
    """All of them."""

    def affected(self, names: Sequence[str], dead: str) -> tuple[str, ...]:
        """The children to be restarted, in start order; `names` is the group in start order."""
        if self is Strategy.ONE_FOR_ALL:
            return tuple(names)
        at = names.index(dead)
        if self is Strategy.REST_FOR_ONE:
            return tuple(names[at:])
        return (names[at],)


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a restart: doubling from `minimum` to `maximum` seconds.

    `jitter` is the share of the delay that chance may take off, so that children that died together
    do not come back together.
    """

    minimum: float = 0.2
    maximum: float = 30.0
    factor: float = 2.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        if not (0 <= self.minimum <= self.maximum and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(f"impossible backoff: {self}")

    def delay(self, failures: int, chance: random.Random) -> float:
        """Seconds before the restart that follows the `failures`-th failure in a row (from 1)."""
        if self.minimum == 0:
            return 0.0
        delay = self.minimum
        for _ in range(failures - 1):
            delay *= self.factor
            if delay >= self.maximum:
                break
        return min(delay, self.maximum) * (1 - self.jitter * chance.random())


class Intensity:
    """Counts restarts in a sliding period; more than `most` in it are no use."""

    def __init__(self, most: int, period: float) -> None:
        self.most = most
        self.period = period
        self._restarts: deque[tuple[float, str]] = deque()

    def count(self, now: float) -> int:
        """Restarts in the period that ends now."""
        while self._restarts and self._restarts[0][0] <= now - self.period:
            self._restarts.popleft()
        return len(self._restarts)

    def spend(self, now: float, name: str = "") -> bool:
        """Count one restart of a child. False when that is one too many."""
        self._restarts.append((now, name))
        return self.count(now) <= self.most

    def refund(self, name: str, restarts: int) -> None:
        """Take back the last restarts of a child: something else than the child was to blame."""
        for entry in [entry for entry in self._restarts if entry[1] == name][-restarts:]:
            self._restarts.remove(entry)
