"""Which subjects may be waited for: a filter in memory that never says no where it should say yes.

Nearly every record that arrives is awaited by nobody. Asking the database each time would cost more
the more waits; this answers in a few microseconds, out of memory that depends on nothing but the
capacity. It is a Bloom filter, so nothing can be taken out of it: entries that are flushed, expired
or cancelled leave their bits, which only cost a look in vain. It is made anew from the table when
enough was added, beside the one in use, which answers until then.

Who uses it keeps three rules: an entry is committed before its key is added; `begin` comes before
the table is read; a key that is added meanwhile goes into both. So what the reading of the table
does not see was added after `begin`.
"""

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from typing import Final

# With this many bits to a key and probes, at most one key in 200 that nobody waits for is
# mistaken for one that somebody does, up to the capacity.
BITS_PER_KEY: Final = 12
PROBES: Final = 6
_TWO_NUMBERS: Final = Struct("<QQ").unpack


class WaitingFilter:
    """Keys that are waited for, and some that are not.

    Until the first `finish` every key may be waited for.
    """

    def __init__(self, capacity: int) -> None:
        """Make an empty filter for this many keys; beyond them it still never misses any.

        Raises ValueError where there is no room at all.
        """
        if capacity < 1:
            raise ValueError(f"a filter for {capacity} keys: there must be at least one")
        self.capacity = capacity
        # A power of two, so that a position is cut out of a hash by a mask.
        self._bits = 1 << max(6, (capacity * BITS_PER_KEY - 1).bit_length())
        self._filter: bytearray | None = None
        self._next: bytearray | None = None
        self._added = 0
        self._added_next = 0

    @property
    def building(self) -> bool:
        """Whether it is being made anew."""
        return self._next is not None

    @property
    def worn(self) -> bool:
        """Whether it should be made anew: it never was, or holds more than its capacity."""
        return self._filter is None or self._added > self.capacity

    @property
    def size(self) -> int:
        """Bytes that it takes now; at most twice as much as one filter."""
        return sum(len(part) for part in (self._filter, self._next) if part is not None)

    def add(self, keys: Iterable[str]) -> None:
        """Add keys whose entries are committed."""
        keys = list(keys)
        for part in (self._filter, self._next):
            if part is not None:
                self._put(part, keys)
        self._added += len(keys)
        self._added_next += len(keys)

    def may_wait(self, key: str) -> bool:
        """Whether somebody may wait for a key; where it says no, nobody does."""
        bits = self._filter
        if bits is None:
            return True
        mask = self._bits - 1
        at, step = _hashes(key)
        for _ in range(PROBES):
            position = at & mask
            if not bits[position >> 3] & (1 << (position & 7)):
                return False
            at += step
        return True

    def begin(self) -> None:
        """Begin to make it anew; read the table after this. One that was begun is given up."""
        self._next = bytearray(self._bits >> 3)
        self._added_next = 0

    def fill(self, keys: Iterable[str]) -> None:
        """Take in keys that were read from the table since `begin`."""
        assert self._next is not None, "fill without begin"
        keys = list(keys)
        self._put(self._next, keys)
        self._added_next += len(keys)

    def finish(self) -> None:
        """Use what was made anew, now that the whole table was read."""
        assert self._next is not None, "finish without begin"
        self._filter, self._next = self._next, None
        self._added = self._added_next

    def _put(self, bits: bytearray, keys: Iterable[str]) -> None:
        mask = self._bits - 1
        for key in keys:
            at, step = _hashes(key)
            for _ in range(PROBES):
                position = at & mask
                bits[position >> 3] |= 1 << (position & 7)
                at += step


def _hashes(key: str) -> tuple[int, int]:
    """Where the probes of a key begin, and the odd step between them."""
    at, step = _TWO_NUMBERS(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    return at, step | 1
