"""Dead, slow and refusing hosts beside healthy ones: each is left alone, and holds up nobody."""

from collections import Counter
from email.utils import formatdate

import pytest

from engine.simulated import VirtualClock
from tests.virtual.bearing import attempts, check_pauses, check_rates
from tests.virtual.hosts import (
    Behaviour,
    BlackHole,
    Host,
    Limits,
    Refuses,
    Says,
    Trickles,
    Unreachable,
)
from tests.virtual.people import Person
from tests.virtual.stage import Stage

HOUR = 3600.0
_IN_A_YEAR = formatdate(VirtualClock.EPOCH + 365 * 86_400, usegmt=True)
_BEFORE = formatdate(VirtualClock.EPOCH - 86_400, usegmt=True)

DEAD: dict[str, Behaviour] = {
    "refuses": Refuses(),
    "unreachable": Unreachable(),
    "silent": BlackHole(),
    "broken": Says(500),
    "slow": Trickles(20.0),
    "busy": Says(503, {"Retry-After": "900"}, 900.0),
}
"""Hosts of which nothing can be had."""
REFUSING: dict[str, Behaviour] = {
    "year": Says(429, {"Retry-After": "31536000"}, 31_536_000.0),
    "date": Says(429, {"Retry-After": _IN_A_YEAR}, 31_536_000.0),
    "quarter": Says(429, {"Retry-After": "900"}, 900.0),
    "past": Says(429, {"Retry-After": _BEFORE}),
    "zero": Says(429, {"Retry-After": "0"}),
    "second": Says(429, {"Retry-After": "1"}, 1.0),
    "negative": Says(429, {"Retry-After": "-5"}),
    "nonsense": Says(429, {"Retry-After": "soon" * 2000}),
    "untold": Says(429),
}
"""Hosts that ask to be asked later, each time."""
HARD: dict[str, Behaviour] = {
    "limited": Limits(2, 60.0),
    "limited-by-date": Limits(2, 300.0, dates=True),
    "every-third": Says(502, every=3),
    "just-quick-enough": Trickles(1_200.0),
}
"""Hosts of which everything can be had by who is patient."""


class Network:
    """A large server with a third of all accounts, small ones, and bad ones."""

    def __init__(self, stage: Stage, small: int, bad: dict[str, Behaviour], each: int = 3) -> None:
        people = stage.people
        self.bad: dict[str, list[Person]] = {}
        for name, behaviour in bad.items():
            self.bad[name] = people.server(f"{name}.net", each)
            self.host(name).is_always(behaviour)
        self.good = people.server("big.social", small // 2)
        for number in range(small):
            self.good += people.server(f"pds{number}.net", 1)

    def host(self, name: str) -> Host:
        return self.bad[name][0].host


def wanted(stage: Stage) -> None:
    """Everybody's profile and post are wanted, and the repositories of some."""
    everybody = stage.people.all
    stage.known(*everybody, due_in=1e7)
    stage.awaited(*everybody)
    stage.out_of_step(*everybody[::5])


def missing(stage: Stage, *people: Person) -> Counter[str]:
    """What these have and the index does not."""
    dids = {person.did for person in people}
    there = set(stage.profiles())
    posts = {did for (did,) in stage.run("SELECT author_did FROM posts")}
    behind = {did for (did,) in stage.run("SELECT did FROM engine_repos WHERE out_of_step")}
    return +Counter(profile=len(dids - there), record=len(dids - posts), repo=len(dids & behind))


def test_an_hour_with_hosts_of_every_kind(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(database, monkeypatch) as stage:
        network = Network(stage, 40, DEAD | REFUSING | HARD)
        everybody = stage.people.all
        wanted(stage)
        stage.start(without="resolver", fetcher={"attempts": 5})
        stage.hours.pass_by(60.0)
        assert missing(stage, *network.good) == {}
        stage.hours.pass_by(HOUR - 60.0)

        # What is not there is known to be missing, and why; nothing is lost.
        lacking = [person for name in DEAD | REFUSING for person in network.bad[name]]
        assert missing(stage, *(set(everybody) - set(lacking))) == {}
        queue, lacks = stage.queue(), missing(stage, *lacking)
        assert Counter(kind for kind, _ in queue) == lacks
        for name in DEAD:
            rows = [row for key, row in queue.items() if _is_of(key, network.bad[name])]
            assert {state for state, *_ in rows} <= {"waiting", "failed"}
            assert all(reason for *_, reason in rows)
            # An attempt is one that was made, and no other.
            made = attempts(network.host(name), 0.0, HOUR)
            assert 3 <= sum(count for _, count, _ in rows) <= made
            assert made <= 40, name
        for name in REFUSING:
            rows = [row for key, row in queue.items() if _is_of(key, network.bad[name])]
            assert {(state, count) for state, count, _ in rows} == {("waiting", 0)}, name
            assert {reason for *_, reason in rows} <= {"asked_to_wait", "paused", "breaker_open"}
            assert 1 <= len(network.host(name).asked) <= 20, name
        hosts = stage.internet.hosts.values()
        check_rates(hosts)
        assert check_pauses(hosts) > 10

        stage.stop()
        check_counts(stage, [person.host for person in everybody])


def check_counts(stage: Stage, hosts: list[Host]) -> None:
    """The fetcher has counted as many requests of each outcome as hosts have seen."""
    seen = Counter(each.status for host in set(hosts) for each in host.asked)

    def counted(outcome: str) -> float:
        return sum(
            stage.figure("pds_fetcher", "outbound_requests_total", kind=kind, outcome=outcome)
            for kind in ("record", "repo", "latest")
        )

    refused = sum(count for status, count in seen.items() if status >= 429)
    assert counted("http_status") == refused
    assert counted("timeout") == seen[0]
    assert counted("ok") + counted("too_slow") == seen[200]
    refusing = [host for host in set(hosts) if not host.asked]
    assert counted("connect") == sum(len(host.connected) for host in refusing)


def test_dead_hosts_do_not_hold_up_the_others(
    database: str, module_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The healthy ones are served as quickly among as many dead ones as without them."""
    names = [f"{kind}{number}" for number in range(15) for kind in DEAD]
    dead = {name: DEAD[name.rstrip("0123456789")] for name in names}

    def seconds(conninfo: str, bad: dict[str, Behaviour]) -> float:
        with Stage(conninfo, monkeypatch) as stage:
            network = Network(stage, 60, bad, each=1)
            wanted(stage)
            stage.start(without="resolver")
            while missing(stage, *network.good):
                assert stage.now() < HOUR
                stage.hours.pass_by(0.5)
            return stage.now()

    without, among = seconds(module_database, {}), seconds(database, dead)
    assert among <= 1.5 * without, (among, without)


def _is_of(key: tuple[str, str], people: list[Person]) -> bool:
    return any(person.did in key[1] for person in people)
