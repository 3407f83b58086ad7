"""The resolver as a process, on a real database, before servers on loopback."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psutil
import pytest

from actors.messages import MESSAGES
from actors.resolver import Resolver, ResolverOptions
from actors.store import identities
from actors.store.fence import Fence
from actors.store.session import Connection, SessionSettings
from actors.store.users import create_users
from config.loader import load
from engine.control import Fault
from tests.servers import faults
from tests.servers.client import developing
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.unit.engine_harness import Harness
from tests.writing import claimed, make_index, session

EPOCH = 7
GATE = "user_gate"


def did(number: int) -> str:
    return "did:plc:" + f"{number:024d}".translate(str.maketrans("0189", "abcd"))


def handle(number: int) -> str:
    return f"u{number}.test"


class World:
    """Accounts with documents and handles, as far as they are made."""

    def __init__(self, conninfo: str, connection: Connection, fence: Fence) -> None:
        self.conninfo = conninfo
        self.connection = connection
        self.fence = fence
        self.plc = PlcDirectory()
        self.dns = DnsServer()

    def account(self, number: int, *, user: bool = True) -> str:
        made = did(number)
        self.plc.documents[made] = {"id": made, "alsoKnownAs": [f"at://{handle(number)}"]}
        self.dns.txt(f"_atproto.{handle(number)}", f"did={made}")
        if user:
            create_users(self.connection, self.fence, [made])
        return made

    def handles(self) -> dict[str, str]:
        rows = self.connection.execute("SELECT did, handle FROM users").fetchall()
        return dict(rows)

    def one(self, sql: str) -> Any:
        row = self.connection.execute(sql.encode()).fetchone()
        assert row is not None
        return row[0]

    def due(self) -> int:
        return int(self.one("SELECT count(*) FROM engine_identities WHERE next_check <= now()"))

    @contextmanager
    def resolver(self, crash_points: str = "", **changes: Any) -> Iterator[Harness]:
        limits = {"requests_per_second": 1000.0, "connections": 20, **changes}
        network = developing(
            plc_url=self.plc.url, nameservers=self.dns.nameserver, tries=1, dns_seconds=20.0
        )
        options = ResolverOptions(
            SessionSettings(self.conninfo),
            network,
            msgspec.structs.replace(load().resolver, **limits),
        )
        with Harness((), MESSAGES, crash_points) as harness:
            harness.start("resolver", Resolver, options)
            yield harness


def outcomes(harness: Harness, outcome: str) -> float:
    return harness.metrics("resolver").value("identity_resolutions_total", outcome=outcome)


@pytest.fixture
def world(database: str) -> Iterator[World]:
    make_index(database)
    with session(database, GATE) as connection:
        connection.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        made = World(database, connection, claimed(connection, GATE, EPOCH))
        with made.plc, made.dns:
            yield made


def test_all_that_are_due_are_resolved_once_those_of_before_included(world: World) -> None:
    dids = [world.account(number) for number in range(150)]
    old = world.account(500, user=False)
    world.connection.execute("INSERT INTO users (did, handle) VALUES (%s, 'old.test')", [old])
    with world.resolver() as harness:
        harness.until(lambda: world.due() == 0 and old in world.handles())
        harness.until(lambda: world.handles()[old] == handle(500))
        harness.until(lambda: outcomes(harness, "valid") == 151)
        assert harness.metrics_now("resolver").value("identities_filled_total") == 1
    assert world.handles() == {
        **{each: handle(number) for number, each in enumerate(dids)},
        old: handle(500),
    }
    assert set(world.plc.asked().values()) == {1}


@pytest.mark.parametrize("point", ["resolver.before_write:1", "resolver.written:1"])
def test_killed_between_any_two_steps_it_ends_with_the_same(world: World, point: str) -> None:
    dids = [world.account(number) for number in range(60)]
    name, nth = point.split(":")
    with world.resolver(f"{name}@resolver:{nth}", requests_per_second=30.0) as harness:
        harness.until(lambda: not harness.processes["resolver"].is_alive())
        assert harness.bury("resolver") == -9
        harness.restart("resolver")
        harness.until(lambda: world.due() == 0)
    assert world.handles() == {each: handle(number) for number, each in enumerate(dids)}


def test_killed_again_and_again_it_goes_on(world: World) -> None:
    dids = [world.account(number) for number in range(200)]
    with world.resolver(requests_per_second=25.0, concurrency=5) as harness:
        for left in (180, 120, 60):
            harness.until(lambda left=left: world.due() < left)  # type: ignore[misc]
            assert world.due() > 0
            harness.kill("resolver")
            harness.restart("resolver")
        harness.until(lambda: world.due() == 0)
    assert world.handles() == {each: handle(number) for number, each in enumerate(dids)}


def test_what_changed_comes_before_a_long_line_of_others(world: World) -> None:
    world.connection.execute(
        "INSERT INTO engine_identities (did, plc) SELECT 'did:plc:' || lpad(n::text, 24, 'x'), true"
        " FROM generate_series(1, 3000) n"
    )
    changed = world.account(1)
    identities.recheck(world.connection, [changed])
    with world.resolver(requests_per_second=10.0, concurrency=5) as harness:
        harness.until(lambda: world.handles()[changed] == handle(1))
        assert list(world.plc.asked()).index(f"/{changed}") < 60


def test_an_event_while_it_is_asked_is_asked_again(world: World) -> None:
    one = world.account(1)
    slow = world.plc.fail(faults.slow(1.0, times=1))
    with world.resolver() as harness:
        harness.until(lambda: slow.fired == 1)
        world.plc.documents[one] = {"id": one, "alsoKnownAs": ["at://new.test"]}
        world.dns.txt("_atproto.new.test", f"did={one}")
        identities.recheck(world.connection, [one])
        harness.until(lambda: world.handles()[one] == "new.test")


def test_a_directory_that_is_away_leaves_every_row_as_it_is_and_says_so_once(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(300):
        world.account(number)
    with world.resolver(concurrency=10) as harness:
        harness.until(lambda: world.due() == 0)
        before = world.handles()
        world.connection.execute("UPDATE engine_identities SET next_check = now()")
        world.plc.fail(faults.status(503))
        asked = len(world.plc.requests)
        harness.until(
            lambda: harness.metrics("resolver").value("resolver_resting", of="directory") == 1
        )
        harness.until(lambda: harness.metrics("resolver").value("identities_in_hand") == 0)
        # But for those that were asked before it was known.
        assert world.due() > 250
        assert world.handles() == before
        assert len(world.plc.requests) - asked < 30
    said = capfd.readouterr()
    assert (said.out + said.err).count("the directory does not answer") == 1


def test_postgresql_away_for_a_moment_loses_nothing(world: World) -> None:
    dids = [world.account(number) for number in range(50)]
    with world.resolver(requests_per_second=50.0, concurrency=5) as harness:
        harness.until(lambda: world.due() < 45)
        world.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'skyshard resolver'"
        )
        harness.until(lambda: world.due() == 0)
        assert not harness.of("resolver", Fault)
    assert world.handles() == {each: handle(number) for number, each in enumerate(dids)}


def test_a_million_that_are_due_are_worked_off_at_the_rate_and_in_little_memory(
    world: World,
) -> None:
    world.connection.execute(
        "INSERT INTO engine_identities (did, plc) SELECT 'did:plc:' || translate("
        "lpad(n::text, 24, '0'), '0189', 'abcd'), true FROM generate_series(1, 1000000) n"
    )
    world.connection.execute("ANALYZE engine_identities")
    with world.resolver(requests_per_second=100.0, concurrency=20) as harness:
        harness.until(lambda: len(world.plc.requests) > 50)
        process = psutil.Process(harness.processes["resolver"].pid)
        memory, asked, began = process.memory_info().rss, len(world.plc.requests), time.monotonic()
        harness.until(lambda: len(world.plc.requests) > asked + 600)
        seconds = time.monotonic() - began
        grown = process.memory_info().rss - memory
        assert harness.metrics_now("resolver").value("identities_due", rank="2") == 100_000
        assert harness.metrics_now("resolver").value("identities_in_hand") <= 20 * 4 + 200
    assert 601 / seconds < 130
    assert grown < 20_000_000
    plan = world.connection.execute(
        "EXPLAIN SELECT * FROM engine_identities WHERE plc = true AND rank = 2"
        " AND next_check <= now() ORDER BY next_check LIMIT 20"
    ).fetchall()
    assert "engine_identities_plc_rank_next_check_skyshard" in str(plan)
