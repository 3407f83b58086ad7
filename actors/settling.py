"""What the registry has shards settle: sent in slices, and known to be done when all are acked.

A shard takes a slice when it has room for it; until then it waits here. The edge keeps what was
taken and replays it to the shard's next generation, so an ack means that the shard has committed
it (or that it became a dead letter).
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from actors.messages import Settle
from actors.store.registry import Claim
from engine.address import Address, member
from engine.context import Context
from engine.sharding import shard_of

# What a shard does in one transaction for the registry. Each is two uris at most, of 2,000 bytes at
# most, so that a slice fits in the window whatever they are.
PIECES_IN_A_SLICE: Final = 500
# Between two attempts to send what a shard had no room for.
RETRY_SECONDS: Final = 0.2


@dataclass(slots=True)
class _Round:
    """What was found at once: how many slices of it are not acked, and what to do after that."""

    left: int
    done: Callable[[], None]


class _Slice(NamedTuple):
    settle: Settle
    round: _Round

    @property
    def pieces(self) -> int:
        return len(self.settle.claims) + len(self.settle.judge)


class Settling:
    """The sender's side of `Settle`, for all shards."""

    def __init__(self, context: Context, shards: int) -> None:
        self._context = context
        self._addresses: list[Address] = [member("shard", index) for index in range(shards)]
        self._queues: dict[Address, deque[_Slice]] = {name: deque() for name in self._addresses}
        self._retrying = False
        self._sent = context.metrics.counter("settles_total", "Slices sent to shards")
        self._unsettled = context.metrics.gauge(
            "pending_unsettled", "Entries and posts that were found and are not settled"
        )
        # Entries and posts that were found and are not settled yet.
        self.pieces = 0

    def start(self) -> None:
        """Listen to the acks of the shards."""
        for name in self._addresses:
            self._context.on_ack(name, self._acked)

    def send(
        self, claims: Iterable[Claim], judge: Mapping[str, str], done: Callable[[], None]
    ) -> None:
        """Have the authors' shards claim entries and judge posts (uri and author).

        `done` is called from the actor's loop, when all is acked.
        """
        by_shard: dict[Address, Settle] = {}

        def of(author: str) -> Settle:
            name = self._addresses[shard_of(author, len(self._addresses))]
            return by_shard.setdefault(name, Settle([], []))

        for uri, awaited, author in claims:
            of(author).claims.append((uri, awaited))
        for uri, author in judge.items():
            of(author).judge.append(uri)
        slices = [(name, part) for name, settle in by_shard.items() for part in _slices(settle)]
        if not slices:
            self._context.after(0.0, done)
            return
        round_ = _Round(len(slices), done)
        for name, settle in slices:
            piece = _Slice(settle, round_)
            self._queues[name].append(piece)
            self._count(piece.pieces)
        self.pump()

    def pump(self) -> None:
        """Send what there is room for; try again in a moment for the rest."""
        for name, queue in self._queues.items():
            while queue and self._context.offer(name, queue[0].settle, token=queue[0]):
                queue.popleft()
                self._sent.add()
        if not self._retrying and any(self._queues.values()):
            self._retrying = True
            self._context.after(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self.pump()

    def _acked(self, slices: list[Any]) -> None:
        for piece in slices:
            assert isinstance(piece, _Slice), piece
            self._count(-piece.pieces)
            piece.round.left -= 1
            if piece.round.left == 0:
                piece.round.done()
        self.pump()

    def _count(self, pieces: int) -> None:
        self.pieces += pieces
        self._unsettled.set(self.pieces)


def _slices(settle: Settle) -> Iterable[Settle]:
    claims, judge = settle.claims, settle.judge
    for start in range(0, len(claims), PIECES_IN_A_SLICE):
        yield Settle(claims[start : start + PIECES_IN_A_SLICE], [])
    for start in range(0, len(judge), PIECES_IN_A_SLICE):
        yield Settle([], judge[start : start + PIECES_IN_A_SLICE])
