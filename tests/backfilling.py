"""A network with a history, and its live traffic beside a backfill, measured.

The relay has what happens from now on, the servers of the accounts all that ever happened. What is
measured is the way of every event: from the moment at which the relay has it until the first look,
of ten a second, at which the saved checkpoint covers it. The checkpoint is that of all shards, and
saved once a second, so this is more than what the slowest event really takes.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psycopg

from actors.atproto import frames
from actors.atproto.events import Account
from bench.network import Network
from bench.network_account import did_of, document, key_of
from bench.relay_process import RelayProcess
from tests.servers.growing import Growing

TICK: Final = 0.05
MOST_AT_ONCE: Final = 100
LOOK: Final = 0.1
# Accounts that may be born while a run lasts.
TO_COME: Final = 2_000
# All that is older than this is durable again: so a kill is over.
OVER_SECONDS: Final = 2.0
_CURSOR: Final = "SELECT max(cursor::bigint) FROM firehose_cursor"


class Size(NamedTuple):
    """How large a run is: accounts, events before it, events a second while it lasts."""

    accounts: int
    history: int
    rate: float
    seed: int = 3


class Story:
    """What is said in a network: the history, and then as much as is asked for."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._network = Network(size.seed, size.accounts, records_per_account=2_000)
        self.history = [each for each in self._network.events(size.history) if _stays(each)]
        self.live: list[bytes] = []

    def more(self, count: int) -> list[bytes]:
        """The next events."""
        made = [each for each in self._network.events(count) if _stays(each)]
        self.live += made
        return made

    def documents(self) -> dict[str, Any]:
        """The documents of all accounts there are or may be."""
        seed = self.size.seed
        return {
            did_of(seed, index): document(
                did_of(seed, index), f"u{index}.network.test", key_of(seed, index)
            )
            for index in range(self.size.accounts + TO_COME)
        }


def _stays(frame: bytes) -> bool:
    """The repository of who goes away cannot be had, which is another matter."""
    event = frames.decode(frame)
    return not (isinstance(event, Account) and not event.active)


class Traffic:
    """Live traffic from a relay, whose servers know it a moment before; and a look at the database.

    A context manager. `broken` is what ended it before its time.
    """

    def __init__(self, story: Story, relay: RelayProcess, servers: Growing, conninfo: str) -> None:
        self._story = story
        self._relay = relay
        self._servers = servers
        self._conninfo = conninfo
        self._ends = threading.Event()
        self._quiet = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._publish, self._watch)]
        self.published: list[tuple[float, int]] = []
        self.looks: list[tuple[float, int]] = []
        self.broken: BaseException | None = None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._quiet.set()
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def be_quiet(self) -> None:
        """Nothing more happens from now on."""
        self._quiet.set()
        self._threads[0].join()

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self.published[-1][1]

    def is_durable(self) -> bool:
        """Whether all that was published is."""
        return bool(self.looks) and self.looks[-1][1] >= self.last

    def _publish(self) -> None:
        began = time.monotonic()
        given = 0
        try:
            while not self._quiet.wait(TICK):
                # What could not be said in time is said later, a little at a time.
                due = int((time.monotonic() - began) * self._story.size.rate) - given
                due = min(due, MOST_AT_ONCE)
                if due <= 0:
                    continue
                given += due
                made = self._story.more(due)
                self._servers.publish(made)
                now = time.monotonic()
                self._relay.publish(made)
                self.published.append((now, frames.peek(made[-1]).seq or 0))
        except BaseException as error:
            self.broken = error
            raise

    def _watch(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._ends.wait(LOOK):
            try:
                if connection is None:
                    connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=2)
                row = connection.execute(_CURSOR).fetchone()
            except psycopg.Error:
                # PostgreSQL is away, or has no tables yet: what is not seen to be durable is not.
                if connection is not None:
                    connection.close()
                connection = None
            else:
                self.looks.append((time.monotonic(), int((row and row[0]) or 0)))
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


class Lag(NamedTuple):
    """Seconds that events took; each event counts."""

    events: int
    p50: float
    p99: float
    most: float


def lags(
    published: Iterable[tuple[float, int]], looks: Sequence[tuple[float, int]]
) -> list[tuple[float, int, float]]:
    """When, how many events, and the seconds that they took: those that became durable."""
    times, cursors = zip(*looks, strict=True)
    before = 0
    found = []
    for moment, seq in published:
        at = bisect_left(cursors, seq)
        if at < len(cursors):
            found.append((moment, seq - before if before else 1, times[at] - moment))
        before = seq
    return found


def lag_of(found: Iterable[tuple[float, int, float]]) -> Lag:
    """What they come to."""
    taken = sorted((seconds, count) for _, count, seconds in found)
    events = sum(count for _, count in taken)
    return Lag(events, _at(taken, events * 0.5), _at(taken, events * 0.99), round(taken[-1][0], 2))


def _at(taken: Sequence[tuple[float, int]], rank: float) -> float:
    passed = 0
    for seconds, count in taken:
        passed += count
        if passed >= rank:
            return round(seconds, 2)
    return round(taken[-1][0], 2)


def apart_from(
    found: Sequence[tuple[float, int, float]], kills: Iterable[float]
) -> list[tuple[float, int, float]]:
    """Those that were published at no time at which a kill was not over yet, nor on their way when
    one came.
    """
    left = list(found)
    for kill in kills:
        over = _over(found, kill)
        left = [each for each in left if each[0] + each[2] < kill or each[0] > over]
    return left


def _over(found: Sequence[tuple[float, int, float]], kill: float) -> float:
    """The first moment after a kill at which what is published takes no longer than usual."""
    return next(
        (moment for moment, _, seconds in found if moment > kill and seconds < OVER_SECONDS), kill
    )


def write(path: Path, value: str) -> Path:
    """A file with this text."""
    path.write_text(value)
    return path
