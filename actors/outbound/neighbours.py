"""What is known of addresses, which many names may share.

Each name has a breaker of its own (`hosts`); but behind thousands of them there may be one machine,
and what it bears, or that it is dead, is not to be found out anew for each. So new connections to
an address have a rate; a place (address and port) that takes no connections is left alone whatever
the name; and so are names of one domain at one place where several of them failed, one after the
other. Other domains at that place are not: on a shared machine anybody can have names that fail.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from actors.outbound import target as targets
from actors.outbound.breaker import Breaker
from actors.outbound.pace import Pace
from config.settings import NetworkSettings
from engine.restarts import Backoff

Place = tuple[str, int]
"""An address or a host, and a port."""

_DOMAIN_LABELS: Final = 2

K = TypeVar("K")
V = TypeVar("V")


class _Group:
    """Names that stand and fall together; `failing` are those that failed since one did not."""

    __slots__ = ("breaker", "failing")

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.failing: set[str] = set()


class Attempt(NamedTuple):
    """A connection that is being made for a name, and whether it is one that tries."""

    name: str
    place: Place
    tries_place: bool
    tries_group: bool


class Neighbours:
    """The addresses that are asked; what was asked least recently is forgotten.

    Args:
        settings: for the rate, the breakers, and the bound.
        now: tells the time in seconds; only differences count.
        chance: for jitter.
    """

    def __init__(
        self, settings: NetworkSettings, now: Callable[[], float], chance: random.Random
    ) -> None:
        self._settings = settings
        self._now = now
        self._chance = chance
        self._backoff = Backoff(settings.breaker_min_seconds, settings.breaker_max_seconds)
        self._paces = _Bounded[str, Pace](settings.hosts, Pace)
        self._places = _Bounded[Place, Breaker](settings.hosts, Breaker)
        self._groups = _Bounded[tuple[str, Place], _Group](settings.hosts, _Group)
        self._of_names: OrderedDict[str, Attempt] = OrderedDict()

    def wait(self, address: str) -> float:
        """In how many seconds the next connection to an address may be made."""
        return self._paces[address].wait(self._now(), self._settings.requests_per_second)

    def reserve(self, address: str) -> float:
        """Take that turn; returns the same."""
        return self._paces[address].reserve(self._now(), self._settings.requests_per_second)

    def closed_for(self, name: str, place: Place) -> float:
        """Seconds for which a name is not asked at a place; 0.0 when it may be."""
        now = self._now()
        group = self._groups[domain(name), place]
        return max(self._places[place].closed_for(now), group.breaker.closed_for(now))

    def begin(self, name: str, place: Place) -> Attempt:
        """A connection is being made; tell what came of it: first `connected`, then `judge`."""
        tries_place = self._places[place].admit()
        tries_group = self._groups[domain(name), place].breaker.admit()
        made = self._of_names[name] = Attempt(name, place, tries_place, tries_group)
        self._of_names.move_to_end(name)
        if len(self._of_names) > self._settings.hosts:
            _, forgotten = self._of_names.popitem(last=False)
            self._judge(forgotten, None)
        return made

    def connected(self, attempt: Attempt, good: bool | None) -> None:
        """Whether the place took the connection; None: it was given up."""
        most = self._settings.breaker_failures
        self._tell(self._places[attempt.place], good, attempt.tries_place, most)

    def judge(self, name: str, good: bool | None) -> None:
        """Whether a name answered, at the place it was last connected to; None: nobody knows."""
        attempt = self._of_names.get(name)
        if attempt is not None:
            self._judge(attempt, good)
            self._of_names[name] = attempt._replace(tries_group=False)

    def _judge(self, attempt: Attempt, good: bool | None) -> None:
        group = self._groups[domain(attempt.name), attempt.place]
        most = self._settings.breaker_failures
        if good:
            group.failing.clear()
        elif good is False and len(group.failing) < most:
            group.failing.add(attempt.name)
            # Fewer say nothing yet of the others.
            good = False if len(group.failing) == most else None
        self._tell(group.breaker, good, attempt.tries_group, 1)

    def _tell(self, breaker: Breaker, good: bool | None, probe: bool, most: int) -> None:
        if good:
            breaker.good()
        elif good is not None:
            breaker.bad(self._now(), probe, most, self._backoff, self._chance)
        elif probe:
            breaker.abandon()


class _Bounded(Generic[K, V]):
    """So many of something, made when they are asked for."""

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        self._most = most
        self._make = make
        self._held: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = self._make()
            if len(self._held) > self._most:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return held


def domain(name: str) -> str:
    """What names that belong together have in common: all but the first label, if two are left."""
    parent = name.partition(".")[2]
    if targets.is_address(name) or parent.count(".") < _DOMAIN_LABELS - 1:
        return name
    return parent
