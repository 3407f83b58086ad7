"""What was seen recently: a bounded set that forgets what has not been asked for longest."""

from collections.abc import Iterable
from typing import Final

from cachetools import LRUCache

LONGEST: Final = 300
"""A longer entry is forgotten at once, since what is remembered is bounded by its number. Real DIDs
are shorter; the syntax allows 2,048 characters."""


class Recent:
    """A set of at most `size` strings of at most `LONGEST` characters."""

    def __init__(self, size: int) -> None:
        self._entries: LRUCache[str, None] = LRUCache(maxsize=size)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: str) -> bool:
        return entry in self._entries

    def missing(self, entries: Iterable[str]) -> set[str]:
        """Return those that are not in it; those that are count as just used."""
        held = self._entries
        absent = set()
        for entry in entries:
            try:
                held[entry]
            except KeyError:
                absent.add(entry)
        return absent

    def update(self, entries: Iterable[str]) -> None:
        """Add entries."""
        for entry in entries:
            if len(entry) <= LONGEST:
                self._entries[entry] = None
