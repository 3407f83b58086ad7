"""How often something may be done. Pure: time comes in as an argument."""


class Pace:
    """So many a second on average; a second's worth, and one at least, may go at once."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def reserve(self, now: float, rate: float) -> float:
        """Take the next turn, and tell in how many seconds it is."""
        wait = self.wait(now, rate)
        self._next = max(self._next, now) + 1.0 / rate
        return wait

    def wait(self, now: float, rate: float) -> float:
        """In how many seconds the next turn is."""
        ahead = max(rate - 1.0, 0.0) / rate
        return max(0.0, self._next - now - ahead)

    def idle(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        return self._next <= now
