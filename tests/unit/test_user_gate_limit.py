"""The limit of creations at once, under many requests from many shards, and its setting."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest

from actors.messages import CreateUsers, EnsureUsers, OutboxWork, SweepOutbox
from actors.store import outbox
from actors.store.arrays import register
from config.loader import ConfigError, load, variable
from engine.actor import Actor
from engine.address import Address
from engine.errors import AskTimeout
from tests.unit.test_user_gate import BODY, EPOCH, did, leave_work, stage, users
from tests.writing import make_index

VARIABLE: Final = variable("user_gate.max_concurrent_user_creations")
SHARDS: Final = 16
ASKS: Final = 500
WORK: Final = 125
# Each request is for its own DIDs and for some that others ask for too.
COMMON: Final = 200
LOCK_CLASS: Final = 7
# Each statement counts, from inside, the transactions of creations under way, its own included; the
# first ones wait for each other, so that the limit is reached if it can be.
LOOK: Final = f"""
CREATE TABLE most (seen integer);
CREATE SEQUENCE tries;
CREATE FUNCTION under_way() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = {LOCK_CLASS} AND granted
$$;
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + interval '5 s';
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOCK_CLASS}, pg_backend_pid());
    IF nextval('tries') <= TG_ARGV[0]::integer THEN
        WHILE under_way() < TG_ARGV[0]::integer AND clock_timestamp() < until LOOP
            PERFORM pg_sleep(0.001);
        END LOOP;
    END IF;
    INSERT INTO most VALUES (under_way());
    RETURN NULL;
END $$;
CREATE TRIGGER look BEFORE INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION look('{{limit}}')
"""


@dataclass(frozen=True)
class Load:
    """What one shard asks for: `work` are rows of the outbox that it sends along in between."""

    index: int
    work: tuple[int, ...]


def asked(index: int, number: int) -> list[str]:
    return [did(10_000 + index * ASKS + number), did(number * 7 % COMMON)]


def worked(index: int, number: int) -> list[str]:
    return [did(100_000 + index * WORK + number), did(number * 11 % COMMON)]


class BusyShard(Actor):
    """Asks one after the other, sends work along, and never waits for the gate to take it."""

    settings: Load

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        if not up:
            return
        index = self.settings.index
        for number in range(ASKS):
            if number < WORK:
                body = BODY.encode(CreateUsers(worked(index, number)))
                self.context.offer(peer, OutboxWork(self.settings.work[number], number + 1, body))
            try:
                self.context.ask(peer, EnsureUsers(asked(index, number)), 30.0)
            except AskTimeout:
                self.context.finish({"late": number})
                return
            self.context.progress()
        self.context.offer(peer, SweepOutbox())
        self.context.finish({"late": None})


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(make_index(database), autocommit=True) as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        register(opened)
        yield opened


@pytest.mark.parametrize("limit", [3, 10])
def test_ten_thousand_requests_from_many_shards_never_exceed_the_limit(
    database: str, connection: psycopg.Connection[Any], limit: int
) -> None:
    settings = load(None, {VARIABLE: str(limit)}).user_gate
    connection.execute(LOOK.format(limit=limit).encode())
    wanted = {name for index in range(SHARDS) for n in range(ASKS) for name in asked(index, n)}
    wanted |= {name for index in range(SHARDS) for n in range(WORK) for name in worked(index, n)}
    loads = []
    for index in range(SHARDS):
        rows = leave_work(connection, *(worked(index, number) for number in range(WORK)))
        loads.append(Load(index, tuple(rows)))
    with stage(
        database,
        SHARDS,
        max_concurrent_user_creations=settings.max_concurrent_user_creations,
        # Small statements, so that there are many of them.
        batch_users=4,
    ) as harness:
        for of in loads:
            harness.spawn(f"asker-{of.index}", BusyShard, of)
        harness.until(
            lambda: all(harness.reports(f"asker-{index}") for index in range(SHARDS)), 120
        )
        harness.until(lambda: outbox.depth(connection) == 0, 60)
    assert [harness.reports(f"asker-{index}") for index in range(SHARDS)] == [
        [{"late": None}]
    ] * SHARDS
    assert SHARDS * (ASKS + WORK) == 10_000
    row = connection.execute("SELECT max(seen), count(*) FROM most").fetchone()
    assert row is not None
    most, statements = row
    assert most == limit
    assert statements > 10 * limit
    assert users(connection) == len(wanted)
    missing = connection.execute(
        "SELECT count(*) FROM unnest(%s::text[]) AS i (did) LEFT JOIN users u USING (did)"
        " WHERE u.did IS NULL",
        [sorted(wanted)],
    ).fetchone()
    assert missing == (0,)


def test_the_limit_is_ten_unless_a_setting_says_otherwise() -> None:
    assert load().user_gate.max_concurrent_user_creations == 10
    assert load(None, {VARIABLE: "3"}).user_gate.max_concurrent_user_creations == 3
    appview = {"MAX_CONCURRENT_USER_CREATIONS": "5"}
    assert load(None, appview).user_gate.max_concurrent_user_creations == 5
    assert load(None, {**appview, VARIABLE: "3"}).user_gate.max_concurrent_user_creations == 3
    with pytest.raises(ConfigError, match=r"^MAX_CONCURRENT_USER_CREATIONS: user_gate"):
        load(None, {"MAX_CONCURRENT_USER_CREATIONS": "many"})


@pytest.mark.parametrize("value", ["0", "-1", "101", "many", "2.5", ""])
def test_an_impossible_limit_is_one_line_that_names_its_place(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {VARIABLE: value})
    said = str(caught.value)
    assert said.startswith(f"{VARIABLE}: user_gate.max_concurrent_user_creations")
    assert "\n" not in said
    assert "1 to 100" in said


@pytest.mark.parametrize(
    ("active", "status", "shown"),
    [
        (True, None, None),
        (False, "deactivated", "deactivated"),
        (False, "odd-new-one", "odd-new-one"),
        (False, None, "inactive"),
    ],
)
def test_a_user_is_made_with_the_status_that_its_account_has_already(
    database: str,
    connection: psycopg.Connection[Any],
    active: bool,
    status: str | None,
    shown: str | None,
) -> None:
    connection.execute(
        "INSERT INTO engine_accounts (did, active, status) VALUES (%s, %s, %s)",
        [did(1), active, status],
    )
    leave_work(connection, [did(1), did(2)])
    with stage(database, 0) as harness:
        harness.until(lambda: outbox.depth(connection) == 0)
    made = connection.execute("SELECT did, engine_account_status FROM users").fetchall()
    assert dict(made) == {did(1): shown, did(2): None}
