"""What hosts had to bear, from their own records."""

from collections import defaultdict
from collections.abc import Iterable

from tests.virtual.hosts import Host

MINUTE = 60.0
LONGEST_PAUSE = 3600.0
# What was under way already when a host asked for a pause.
UNDER_WAY = 1.0


def most_within(times: Iterable[float], seconds: float = MINUTE) -> int:
    """The largest number of moments in any span of so many seconds."""
    most, first, seen = 0, 0, sorted(times)
    for last, moment in enumerate(seen):
        while seen[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def check_rates(hosts: Iterable[Host], rate: float = 10.0) -> None:
    """No name got more requests, and no address more connections, of any client than may be:
    `rate` a second on average, and a second's worth at once."""
    # A new connection takes a moment, so that what is sent after it may come right behind.
    bound = rate * MINUTE + rate + 2
    for host in hosts:
        asked, connected = defaultdict(list), defaultdict(list)
        for each in host.asked:
            asked[each.client, each.name].append(each.at)
        for at, client in host.connected:
            connected[client].append(at)
        for who, times in [*asked.items(), *connected.items()]:
            assert most_within(times) <= bound, (host.address, who)


def check_pauses(hosts: Iterable[Host]) -> int:
    """Nobody was asked before the time that it had named was over; returns how many named one."""
    named = 0
    for host in hosts:
        of_clients = defaultdict(list)
        for each in host.asked:
            of_clients[each.client, each.name].append(each)
        for asked in of_clients.values():
            until = under_way = 0.0
            for each in asked:
                assert each.at >= until or each.at <= under_way, (each, until)
                if each.wait:
                    named += 1
                    until = max(until, each.at + min(each.wait, LONGEST_PAUSE))
                    under_way = each.at + UNDER_WAY
    return named


def last_attempt(host: Host) -> float:
    """When somebody last tried to reach a host."""
    asked = host.asked[-1].at if host.asked else 0.0
    return max(asked, host.connected[-1][0] if host.connected else 0.0)


def attempts(host: Host, begin: float, end: float) -> int:
    """How often it was tried to reach a host: requests, and connections that came to none."""
    asked = sum(begin < each.at < end for each in host.asked)
    connected = sum(begin < at < end for at, _ in host.connected)
    return max(asked, connected)
