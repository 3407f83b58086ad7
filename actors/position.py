"""How far the stream is durable, and what of that is saved.

A position is taken in when its event is handed to a shard, and finished when the shard has
acknowledged it. Everything at or before the low-watermark is finished; that is what is saved, and
never more.
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final

from actors.store.checkpoint import Checkpoint, CheckpointError, Saved
from engine.watermark import Watermark

_log = logging.getLogger(__name__)

SLOWEST_RETRY: Final = 30.0
"""Longest pause in seconds between two attempts to save while the database is away."""

MOST_MARKS: Final = 4096
"""Times that are kept of what is not durable; beyond them one a second. What needs no work is not
bounded by a window."""


class Position:
    """The low-watermark of one host, with the times of its events, and its checkpoint.

    Args:
        checkpoint: where it is saved.

    Attributes:
        durable: the low-watermark; -1 before the first event.
        durable_time: Unix time of its event, to within the events that were marked together.
        saved: the cursor that the database holds, as far as we know; None for none.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._watermark = Watermark(-1)
        self._marks: deque[tuple[int, float]] = deque()
        self._replace = False
        self._unproven: int | None = None
        self._failures = 0
        self._retry_at = float("-inf")
        self._age: float | None = None
        self._touched = 0.0
        self.durable_time: float | None = None
        self.saved: int | None = None

    def claim(self) -> Saved | None:
        """Take over from the last generation; returns what is saved, and starts after that.

        Raises CheckpointError, CheckpointUnusable, and Fenced where a newer generation lives.
        """
        self._checkpoint.claim()
        saved = self._checkpoint.load()
        if saved is not None:
            # 0 asks for the oldest and says nothing about an event of that number.
            self.begin_at(saved.cursor or -1)
            self.durable_time, self.saved = saved.last_event_time, saved.cursor
        return saved

    def move(self, checkpoint: Checkpoint) -> None:
        """Go on with another host, of which nothing is taken in; `claim` it then."""
        self._checkpoint.close()
        self._checkpoint = checkpoint
        self._replace, self._failures, self._retry_at = False, 0, float("-inf")
        self.saved = None
        self.begin_at(-1)

    def elsewhere(self) -> float | None:
        """See Checkpoint. Raises CheckpointError."""
        return self._checkpoint.elsewhere()

    def saved_in_this_run(self) -> bool:
        """See Checkpoint. Raises CheckpointError."""
        return self._checkpoint.saved_in_this_run()

    def begin_at(self, cursor: int, *, replace: bool = False, proven: bool = True) -> None:
        """Begin after a cursor, with nothing taken in; `replace` what is saved, even if later.

        One that is not `proven`, as no event of the source has told of it, is never saved itself.
        """
        self._watermark = Watermark(cursor)
        self._marks.clear()
        self._replace = self._replace or replace
        self._unproven = None if proven else cursor
        self.durable_time = None

    @property
    def durable(self) -> int:
        return self._watermark.value

    def begin(self, seq: int) -> None:
        """An event is on its way; numbers ascend."""
        self._watermark.begin(seq)

    def pass_over(self, seq: int) -> None:
        """An event needs no work; numbers ascend."""
        self._watermark.pass_over(seq)

    def finish(self, positions: Iterable[int]) -> None:
        """The work of these events is durable."""
        self._watermark.finish(positions)

    def mark(self, seq: int, time: float, now: float) -> None:
        """Note that the event of this number was made at this Unix time, and came `now`."""
        marks = self._marks
        if len(marks) < MOST_MARKS or time >= marks[-1][1] + 1.0:
            marks.append((seq, time))
        self._age, self._touched = max(0.0, now - time), now

    def lag(self, now: float, *, in_touch: bool) -> float | None:
        """How far the index is behind, in seconds; `now` is Unix time. None where nothing is known.

        That is the age of the oldest event that is not durable; where all that came is, the age
        that the last one had when it came, and on top the time since the source was last in touch:
        open and read, and either sending or silent for so long that it has nothing to send.
        """
        self._settle()
        if in_touch:
            self._touched = now
            if self._age is None and self.durable_time is not None:
                self._age = 0.0
        if self._marks:
            return max(0.0, now - self._marks[0][1])
        if self._age is not None:
            return self._age + max(0.0, now - self._touched)
        return None if self.durable_time is None else max(0.0, now - self.durable_time)

    @property
    def unsaved(self) -> bool:
        """Whether a save would change something."""
        durable = self.durable
        return durable != self._unproven and (
            self._replace or (durable >= 0 and durable != self.saved)
        )

    def save(self, now: float, *, hurry: bool = False) -> bool:
        """Save the low-watermark if there is anything new; True once nothing is unsaved.

        After a failure it is tried again with growing pauses (`now` is monotonic), unless in a
        hurry; only the first failure in a row is logged, and the end of them. Raises Fenced.
        """
        if not self.unsaved:
            return True
        if now < self._retry_at and not hurry:
            return False
        self._settle()
        cursor = max(self.durable, 0)
        write = self._checkpoint.replace if self._replace else self._checkpoint.save
        try:
            write(cursor, self.durable_time)
        except CheckpointError as error:
            self._failures += 1
            self._retry_at = now + min(SLOWEST_RETRY, 2.0 ** min(self._failures - 1, 5))
            log = _log.warning if self._failures == 1 else _log.debug
            log("%s; going on, and trying again until it is", error)
            return False
        if self._failures:
            _log.info("the checkpoint is saved again, at %d", cursor)
        self._failures, self._retry_at, self._replace = 0, float("-inf"), False
        self.saved = cursor
        return True

    @property
    def failures(self) -> int:
        """Saves that failed in a row."""
        return self._failures

    def outbox_depth(self) -> int:
        """See Checkpoint. Raises CheckpointError."""
        return self._checkpoint.outbox_depth()

    def tallies(self) -> dict[str, int]:
        """See Checkpoint. Raises CheckpointError."""
        return self._checkpoint.tallies()

    def end_run(self) -> None:
        """See Checkpoint. Raises CheckpointError."""
        self._checkpoint.end_run()

    def close(self) -> None:
        self._checkpoint.close()

    def _settle(self) -> None:
        while self._marks and self._marks[0][0] <= self.durable:
            self.durable_time = self._marks.popleft()[1]
