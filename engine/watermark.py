"""The low-watermark: the position up to which everything is done, whatever the order of finishing.

Positions are integers that grow, with gaps or without. What is finished is told in bulk, as it is
acked, and costs a fraction of a microsecond per position; the memory is bounded by what is under
way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Watermark:
    """The low-watermark of one stream.

    Args:
        position: everything up to here is done already; -1 where nothing is.
    """

    def __init__(self, position: int = -1) -> None:
        self._value = position
        self._last = position
        self._begun: deque[int] = deque()
        self._done: set[int] = set()

    @property
    def value(self) -> int:
        """The highest position of which it is sure that it and all before it are done.

        It never goes back, and never passes a position that is under way.
        """
        begun, done = self._begun, self._done
        while begun and begun[0] in done:
            self._value = begun.popleft()
            done.remove(self._value)
        return self._value

    @property
    def last(self) -> int:
        """The position that was begun last."""
        return self._last

    @property
    def under_way(self) -> int:
        """How many positions are begun and not finished."""
        return len(self._begun) - len(self._done)

    def begin(self, position: int) -> None:
        """Note that a position is under way.

        Raises:
            ValueError: it is not above the one before. To begin behind the watermark would have
                the stream go on after events that were lost.
        """
        if position <= self._last:
            raise ValueError(f"position {position} begins after {self._last}: they must ascend")
        self._last = position
        self._begun.append(position)

    def pass_over(self, position: int) -> None:
        """Note that a position needs no work. A run of them takes the memory of one.

        Raises:
            ValueError: see `begin`.
        """
        begun, done = self._begun, self._done
        if begun and begun[-1] in done and position > self._last:
            done.remove(begun[-1])
            begun[-1] = self._last = position
        else:
            self.begin(position)
        done.add(position)

    def begin_all(self, positions: Iterable[int]) -> None:
        """Note that several positions, in order, are under way; see `begin` for what it raises."""
        for position in positions:
            self.begin(position)

    def finish(self, positions: Iterable[int]) -> None:
        """Note that these positions are done; in any order, each once, after they began.

        Raises:
            ValueError: more is finished than was begun, or something twice.
        """
        done = self._done
        before = len(done)
        added = positions if isinstance(positions, list | tuple) else list(positions)
        done.update(added)
        if len(done) != before + len(added) or len(done) > len(self._begun):
            raise ValueError("positions were finished twice, or were never begun")
