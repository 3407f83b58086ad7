"""The sources of a run, of which one is read at a time: when the next one takes over. Pure."""

from collections.abc import Sequence

from config.source import Source


class Standbys:
    """The source that is read, and those that stand by.

    Times are monotonic, in seconds.

    Args:
        sources: in the order in which they take over, over and over.
        patience: for how long nothing new may come.
    """

    def __init__(self, sources: Sequence[Source], patience: float) -> None:
        self._sources = list(sources)
        self._patience = patience
        self._heard_at: float | None = None
        self.source = self._sources[0]

    def heard(self, now: float) -> None:
        """Something new came, or reading begins."""
        self._heard_at = now

    def give_up(self, now: float) -> bool:
        """Whether another source is to take over, since nothing comes from this one."""
        if len(self._sources) == 1 or self._heard_at is None:
            return False
        return now - self._heard_at >= self._patience

    def next(self, now: float) -> Source:
        """Have the next one take over."""
        at = self._sources.index(self.source)
        self.source = self._sources[(at + 1) % len(self._sources)]
        self._heard_at = now
        return self.source
