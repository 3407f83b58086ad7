"""What was fetched on its way to the shards: in order, as soon as there is room.

A shard takes a message when its window has room; until then it waits here. What was taken is kept
and replayed by the edge, so an ack means that the shard has committed it.

What somebody waits for goes at once. What a backfill brings is patient: of it a shard has one
message at a time, and then a rest that is as long as its answer took. So live events wait for one
transaction at most, and a shard that is behind with them is given the less.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from actors.fetching.repo_file import SLICE_BYTES, SLICE_RECORDS
from actors.messages import WholeRepo, WholeRepos
from engine.address import Address, member
from engine.context import Context
from engine.message import Message
from engine.sharding import shard_of

RETRY_SECONDS: Final = 0.1
LONGEST_REST: Final = 5.0

Piece = tuple[Message | WholeRepo, Any]
"""What is sent, and the token that is given back when it is written."""


class _Patient(NamedTuple):
    """The token of a message of which a shard has one at a time."""

    sent_at: float
    tokens: list[Any]


@dataclass(slots=True)
class _Lanes:
    """What waits for one shard."""

    at_once: deque[Piece] = field(default_factory=deque)
    patient: deque[Piece] = field(default_factory=deque)
    under_way: bool = False
    rests_until: float = 0.0


class Sending:
    """The sender's side of the edge to all shards.

    Args:
        context: the actor's.
        shards: how many there are.
        acked: called with the tokens of what was committed, in the order of sending.
    """

    def __init__(self, context: Context, shards: int, acked: Callable[[list[Any]], None]) -> None:
        self._context = context
        self._acked = acked
        self._names: list[Address] = [member("shard", index) for index in range(shards)]
        self._lanes = {name: _Lanes() for name in self._names}
        self._retrying = False

    def start(self) -> None:
        """Listen to the acks of the shards."""
        for name in self._names:
            self._context.on_ack(name, partial(self._take, self._lanes[name]))

    def send(
        self, did: str, message: Message | WholeRepo, token: Any, *, patient: bool = False
    ) -> None:
        """Send something to the shard of an account. What is patient comes after what is not; each
        of the two keeps its order. Small repositories share a message.
        """
        lanes = self._lanes[self._names[shard_of(did, len(self._names))]]
        (lanes.patient if patient else lanes.at_once).append((message, token))
        self._pump()

    def _pump(self) -> None:
        left = [self._send_some(name, lanes) for name, lanes in self._lanes.items()]
        if any(left) and not self._retrying:
            self._retrying = True
            self._context.after(RETRY_SECONDS, self._retry)

    def _send_some(self, name: Address, lanes: _Lanes) -> bool:
        """Send what a shard may have now; returns whether it has no room for it."""
        while lanes.at_once:
            message, token = lanes.at_once[0]
            if not self._context.offer(name, message, token=token):
                return True
            lanes.at_once.popleft()
        now = self._context.clock.monotonic()
        if not lanes.patient or lanes.under_way or now < lanes.rests_until:
            return False
        message, tokens = _next(lanes.patient)
        if not self._context.offer(name, message, token=_Patient(now, tokens)):
            return True
        for _ in tokens:
            lanes.patient.popleft()
        lanes.under_way = True
        return False

    def _retry(self) -> None:
        self._retrying = False
        self._pump()

    def _take(self, lanes: _Lanes, tokens: Sequence[Any]) -> None:
        written = []
        for token in tokens:
            if not isinstance(token, _Patient):
                written.append(token)
                continue
            written += token.tokens
            now = self._context.clock.monotonic()
            rest = min(now - token.sent_at, LONGEST_REST)
            lanes.under_way, lanes.rests_until = False, now + rest
            self._context.after(rest, self._pump)
        self._acked(written)
        self._pump()


def _next(patient: deque[Piece]) -> tuple[Message, list[Any]]:
    """The next message, and the tokens of the pieces in it."""
    first, token = patient[0]
    if not isinstance(first, WholeRepo):
        return first, [token]
    repos: list[WholeRepo] = []
    tokens: list[Any] = []
    records = size = 0
    for piece, its_token in patient:
        if not isinstance(piece, WholeRepo):
            break
        records += len(piece.records) + 1
        size += sum(len(each.record) for each in piece.records)
        if repos and (records > SLICE_RECORDS or size > SLICE_BYTES):
            break
        repos.append(piece)
        tokens.append(its_token)
    return WholeRepos(repos), tokens
