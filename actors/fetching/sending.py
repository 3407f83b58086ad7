"""What was fetched on its way to the shards: in order, as soon as there is room.

A shard takes a message when its window has room; until then it waits here. What was taken is kept
and replayed by the edge, so an ack means that the shard has committed it.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from engine.address import Address, member
from engine.context import Context
from engine.message import Message
from engine.sharding import shard_of

RETRY_SECONDS: Final = 0.1


class Sending:
    """The sender's side of the edge to all shards.

    Args:
        context: the actor's.
        shards: how many there are.
        acked: called with the tokens of messages that were committed, in the order of sending.
    """

    def __init__(self, context: Context, shards: int, acked: Callable[[list[Any]], None]) -> None:
        self._context = context
        self._acked = acked
        self._names: list[Address] = [member("shard", index) for index in range(shards)]
        # Before each other: what somebody waits for, and what a backfill brings.
        self._lanes: dict[Address, tuple[deque[Any], deque[Any]]] = {
            name: (deque(), deque()) for name in self._names
        }
        self._retrying = False

    def start(self) -> None:
        """Listen to the acks of the shards."""
        for name in self._names:
            self._context.on_ack(name, self._take)

    def send(self, did: str, message: Message, token: Any, *, patient: bool = False) -> None:
        """Send something to the shard of an account. What is patient comes after what is not; each
        of the two keeps its order.
        """
        name = self._names[shard_of(did, len(self._names))]
        self._lanes[name][patient].append((message, token))
        self._pump()

    def _pump(self) -> None:
        left = False
        for name, lanes in self._lanes.items():
            for lane in lanes:
                while lane and self._context.offer(name, lane[0][0], token=lane[0][1]):
                    lane.popleft()
                if lane:
                    left = True
                    break
        if left and not self._retrying:
            self._retrying = True
            self._context.after(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._pump()

    def _take(self, tokens: list[Any]) -> None:
        self._acked(tokens)
        self._pump()
