"""A day of a large network, with all that may be wrong with it at once."""

import pytest

from tests.virtual.bearing import attempts, check_pauses, check_rates
from tests.virtual.hosts import WELL, Refuses, Unreachable
from tests.virtual.people import Person
from tests.virtual.stage import Stage
from tests.virtual.test_bad_hosts import DEAD, HARD, REFUSING, missing

HOUR = 3600.0
DAY = 24 * HOUR
DOWN_AT = 600.0
# Its breaker tries again after a quarter of an hour at most.
TRIES_OF_A_DAY = 4 * 24 + 30


def large(stage: Stage, hosts: int) -> tuple[list[Person], list[Person], list[Person]]:
    """Accounts on hosts that are well (a third of them on one), or only hard to ask; on hosts of
    which nothing can be had; and accounts whose handles are sites at one dead address."""
    people = stage.people
    good, bad = people.server("big.social", hosts // 2, sites=True), []
    kinds = list((DEAD | REFUSING).values())
    for number in range(hosts):
        mine = people.server(f"pds{number}.net", 1)
        if number % 10 == 3:
            mine[0].host.is_always(kinds[number // 10 % len(kinds)])
            bad += mine
        else:
            good += mine
    for name, behaviour in HARD.items():
        mine = people.server(f"{name}.org", 3)
        mine[0].host.is_always(behaviour)
        good += mine
    gone = people.server("gone.net", hosts // 20, sites=True)
    gone[0].host.is_always(Unreachable())
    return good, bad, gone


@pytest.mark.soak
@pytest.mark.parametrize("hosts", [1_000, 10_000])
def test_a_day_of_a_large_network(
    database: str, monkeypatch: pytest.MonkeyPatch, hosts: int
) -> None:
    with Stage(database, monkeypatch) as stage:
        good, bad, gone = large(stage, hosts)
        everybody, directory = stage.people.all, stage.people.directory
        directory.behaviour = lambda now: Refuses() if DOWN_AT <= now < DOWN_AT + HOUR else WELL
        stage.user(*everybody)
        stage.awaited(*everybody)
        stage.out_of_step(*everybody[::5])
        stage.start()
        stage.hours.pass_by(DOWN_AT + HOUR)
        assert attempts(directory, DOWN_AT, DOWN_AT + HOUR) <= 25

        stage.hours.pass_by(len(everybody) / 10 + 2 * HOUR)
        assert stage.shown(*good, *bad) == len(good) + len(bad)
        assert missing(stage, *good) == {}

        stage.hours.pass_by(DAY - stage.now())
        assert stage.shown(*good, *bad) == len(good) + len(bad)
        assert stage.shown(*gone) == 0
        queue, lacks = stage.queue(), missing(stage, *bad, *gone)
        rows = [row for row in queue.values() if row[0] != "done"]
        assert len(rows) == sum(lacks.values())
        assert all(state in ("waiting", "failed") and reason for state, _, reason in rows)
        hosts_seen = stage.internet.hosts.values()
        check_rates(hosts_seen)
        assert check_pauses(hosts_seen) > hosts / 50
        for person in bad:
            assert attempts(person.host, 0.0, DAY) <= TRIES_OF_A_DAY, person.handle
        # As many are under way as may be asked in the time in which the first is found dead.
        assert attempts(gone[0].host, 0.0, DAY) <= 2 * TRIES_OF_A_DAY
        assert stage.hours.faults_seen == []
