"""The numbers of the work that shards send along: a gap tells that some was not.

A sender numbers its work for one receiver from 1 without gaps (see `OutboxWork`). What is missing
lies in the outbox all the same.
"""

from engine.actor import Delivery
from engine.address import Address
from engine.metrics import Metrics


class Numbering:
    """Follows the numbers of all senders to one receiver, and counts gaps in its `metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._last: dict[Address, tuple[int, int]] = {}
        self._gaps = metrics.counter("outbox_gaps_total", "Gaps in the numbering of work")

    def breaks(self, delivery: Delivery, number: int) -> bool:
        """Whether there is a gap before the work that a delivery brings under this number."""
        generation, last = self._last.get(delivery.sender, (0, 0))
        if delivery.sender_generation != generation:
            last = 0
        self._last[delivery.sender] = (delivery.sender_generation, number)
        if number == last + 1:
            return False
        self._gaps.add()
        return True
