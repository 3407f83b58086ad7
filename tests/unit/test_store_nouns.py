"""Users, outbox, tallies, dead letters: the small tables that the actors share."""

import threading

import pytest

from actors.store import outbox, tallies
from actors.store.dead_letters import DeadLetters
from actors.store.fence import KEPT_EPOCHS, raise_epoch
from actors.store.session import Connection, SessionSettings
from actors.store.users import create_users
from engine.deadletter import DeadLetter
from tests.author import Author
from tests.writing import GATE, begin_run, claimed, decoded, make_index, session, writer


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def put(connection: Connection, *work: tuple[str, bytes]) -> list[int]:
    rows = connection.execute(outbox.INSERT_SQL, outbox.insert_parameters(list(work))).fetchall()
    return [row for (row,) in rows]


# --- users ---------------------------------------------------------------------------------------


def test_users_are_made_once_and_those_that_are_there_stay_as_they_are(index: str) -> None:
    author = Author(1)
    profile = author.creates("app.bsky.actor.profile/self", displayName="Ann")
    epoch = begin_run(index)
    with writer(index, epoch) as writing, session(index, GATE) as connection:
        writing.apply(decoded([profile]).changes)
        connection.execute("UPDATE users SET handle = 'ann.test'")
        gate = claimed(connection, GATE, epoch)
        dids = [author.did, "did:plc:b", "did:plc:a", "did:plc:b"]
        assert create_users(connection, gate, dids) == 2
        assert create_users(connection, gate, dids) == 0
        assert create_users(connection, gate, []) == 0
        rows = connection.execute(
            "SELECT did, handle, display_name, extract(epoch FROM created_at)::bigint"
            " FROM users ORDER BY did"
        ).fetchall()
    assert sorted(rows) == sorted(
        [
            ("did:plc:a", "handle.invalid", None, 0),
            ("did:plc:b", "handle.invalid", None, 0),
            (author.did, "ann.test", "Ann", 1735689600),
        ]
    )


def test_a_profile_keeps_the_handle_whether_it_comes_or_goes(index: str) -> None:
    author = Author(1)
    with (
        writer(index, begin_run(index)) as writing,
        session(index, "resolver") as connection,
    ):
        frames = [author.creates("app.bsky.actor.profile/self", displayName="Ann")]
        writing.apply(decoded(frames).changes)
        connection.execute("UPDATE users SET handle = 'ann.test'")
        writing.apply(decoded([author.deletes("app.bsky.actor.profile/self")]).changes)
        row = connection.execute("SELECT handle, display_name FROM users").fetchone()
    assert row == ("ann.test", None)


def test_statements_that_make_the_same_users_at_once_make_each_once(index: str) -> None:
    epoch = begin_run(index)
    with session(index, GATE) as connection:
        gate = claimed(connection, GATE, epoch)
        rows = put(connection, *[(GATE, b"work")] * 10)
    made: list[int | BaseException] = []
    ready = threading.Barrier(10)

    def one(number: int) -> None:
        try:
            with session(index, GATE) as connection:
                # Odd and even ones come from opposite ends.
                dids = [f"did:plc:{at}" for at in range(number, number + 60)]
                ready.wait(120)
                made.append(create_users(connection, gate, dids[:: (-1) ** number], [rows[number]]))
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            made.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(isinstance(number, int) for number in made), made
    with session(index, "observer") as connection:
        assert sum(number for number in made if isinstance(number, int)) == 69
        assert count(connection, "users") == 69
        assert count(connection, "engine_outbox") == 0
        assert tallies.read(connection, epoch) == {"users_created": 69}


# --- outbox --------------------------------------------------------------------------------------


def test_work_is_left_in_the_order_it_was_written_for_its_receiver_alone(index: str) -> None:
    with session(index, "shard-0") as connection:
        ids = put(connection, ("a", b"1"), ("b", b"2"), ("a", b"3"))
        ids += put(connection, ("a", b"\x00\xff"))
        assert ids == sorted(ids)
        left = outbox.left_for(connection, "a", 10)
        bodies = [(row.row, row.body) for row in left]
        assert bodies == [(ids[0], b"1"), (ids[2], b"3"), (ids[3], b"\x00\xff")]
        assert all(row.age >= 0 for row in left)
        assert [row.row for row in outbox.left_for(connection, "a", 2)] == [ids[0], ids[2]]
        assert outbox.left_for(connection, "nobody", 2) == []
        assert outbox.depth(connection) == 4
        outbox.finish(connection, [ids[0], ids[3], 10**12])
        assert [row.body for row in outbox.left_for(connection, "a", 10)] == [b"3"]
        outbox.finish(connection, [])
        assert outbox.depth(connection) == 2


def test_work_that_is_done_in_a_transaction_that_fails_is_left(index: str) -> None:
    with session(index, GATE) as connection:
        (row,) = put(connection, (GATE, b"work"))
        with connection.transaction(force_rollback=True):
            outbox.finish(connection, [row])
            assert outbox.depth(connection) == 0
        assert outbox.depth(connection) == 1


# --- tallies -------------------------------------------------------------------------------------


def test_tallies_add_up_over_batches_and_actors_of_one_run(index: str) -> None:
    with session(index, "observer") as connection:
        for epoch, actor, amounts in (
            (1, "shard-0", {"a": 1, "b": 2}),
            (1, "shard-0", {"a": 10, "none": 0}),
            (1, "shard-1", {"a": 100}),
            (1, "shard-1", {}),
            (2, "shard-0", {"a": 1000}),
        ):
            connection.execute(tallies.ADD_SQL, tallies.add_parameters(epoch, actor, amounts))
        assert tallies.read(connection, 1) == {"a": 111, "b": 2}
        assert tallies.read(connection, 2) == {"a": 1000}
        assert tallies.read(connection, 3) == {}


def test_tallies_of_the_last_hundred_runs_are_kept(index: str) -> None:
    with session(index, "observer") as connection:
        for epoch in (1, 2):
            connection.execute(tallies.ADD_SQL, tallies.add_parameters(epoch, "a", {"n": 1}))
        raise_epoch(connection, "a test")
        connection.execute("UPDATE engine_epoch SET epoch = %s", [KEPT_EPOCHS])
        assert raise_epoch(connection, "a test") == KEPT_EPOCHS + 1
        assert tallies.read(connection, 1) == {"n": 1}
        raise_epoch(connection, "a test")
        assert tallies.read(connection, 1) == {}
        assert tallies.read(connection, 2) == {"n": 1}


# --- dead letters --------------------------------------------------------------------------------


def test_a_dead_letter_keeps_its_bytes_its_reason_and_its_time(index: str) -> None:
    sink = DeadLetters(SessionSettings(index))()
    sink.put(
        DeadLetter(
            time=1_735_689_600.5,
            sender="ingest",
            receiver="shard-0",
            receiver_generation=3,
            kind="Frames",
            reason="it kills",
            body=b"\x00bytes",
        )
    )
    sink.close()
    with session(index, "observer") as connection:
        row = connection.execute(
            "SELECT sender, receiver, reason, body, extract(epoch FROM created_at)::float8"
            " FROM engine_dead_letters"
        ).fetchone()
    assert row == ("ingest", "shard-0", "it kills", b"\x00bytes", 1_735_689_600.5)
