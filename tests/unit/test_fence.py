"""The fence: who has been replaced cannot write; who replaces waits for what is under way."""

import threading
from collections.abc import Callable

import psycopg
import pytest

from actors.store.fence import FENCE_LOCK, Fence, Fenced, RunReplaced, raise_epoch
from actors.store.session import Connection
from actors.store.users import create_users
from tests import tables
from tests.author import Author
from tests.overlap import SECONDS, Applying, Pause, wait_until, waits_for_a_lock
from tests.writing import begin_run, claimed, decoded, make_index, session, writer

Replace = Callable[[Connection, int], None]


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def post() -> list[bytes]:
    return [Author(1).creates("app.bsky.feed.post/a", text="")]


def nothing_is_written(index: str) -> bool:
    return not any(tables.read_tables(index).values())


def next_generation(connection: Connection, epoch: int) -> None:
    claimed(connection, "shard-1", epoch, generation=2)


def next_run(connection: Connection, _epoch: int) -> None:
    raise_epoch(connection, "another test")


@pytest.mark.parametrize(
    ("replace", "reason"), [(next_generation, Fenced), (next_run, RunReplaced)]
)
def test_a_writer_that_has_been_replaced_cannot_write(
    index: str, replace: Replace, reason: type[Exception]
) -> None:
    epoch = begin_run(index)
    with writer(index, epoch, "shard-1") as ghost, session(index, "other") as connection:
        replace(connection, epoch)
        with pytest.raises(reason):
            ghost.apply(decoded(post()).changes, [("user_gate", b"work")])
        row = connection.execute("SELECT count(*) FROM engine_outbox").fetchone()
    assert row == (0,)
    assert nothing_is_written(index)


@pytest.mark.parametrize("replace", [next_generation, next_run])
def test_who_replaces_a_writer_waits_for_its_transaction(index: str, replace: Replace) -> None:
    epoch = begin_run(index)
    with session(index, "shard-1") as connection:
        claimed(connection, "shard-1", epoch)
    pause = Pause("before_commit")
    ghost = Applying(index, epoch, "shard-1", post(), pause)
    assert pause.reached.wait(SECONDS)
    with session(index, "shard-1") as connection, session(index, "observer") as observer:
        seen: list[bool] = []

        def take_over() -> None:
            replace(connection, epoch)
            seen.append(nothing_is_written(index))

        replacing = threading.Thread(target=take_over)
        replacing.start()
        pid = connection.info.backend_pid
        wait_until(lambda: waits_for_a_lock(observer, pid), "waiting for the ghost")
        assert not seen
        pause.release.set()
        replacing.join(SECONDS)
        # What the ghost had begun is durable before its successor does anything.
        assert seen == [False]
        assert ghost.done().commits == 1


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_a_ghost_that_waited_for_its_successors_claim_is_fenced(index: str, isolation: str) -> None:
    with psycopg.connect(index, autocommit=True) as connection:
        name = connection.info.dbname
        # Whatever the database's own default is.
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'".encode()
        )
    epoch = begin_run(index)
    with session(index, "shard-1") as connection:
        claimed(connection, "shard-1", epoch)
        with session(index, "observer") as observer, connection.transaction():
            connection.execute(f"SELECT pg_advisory_xact_lock({FENCE_LOCK})".encode())
            ghost = Applying(index, epoch, "shard-1", post())
            wait_until(
                lambda: ghost.pid != 0 and waits_for_a_lock(observer, ghost.pid),
                "waiting for the claim",
            )
            connection.execute("UPDATE engine_fences SET generation = 2")
    with pytest.raises(Fenced):
        ghost.done()
    assert nothing_is_written(index)


def test_an_older_generation_cannot_claim_and_the_same_one_can_again(index: str) -> None:
    epoch = begin_run(index)
    with session(index, "shard-1") as connection:
        claimed(connection, "shard-1", epoch, generation=2)
        claimed(connection, "shard-1", epoch, generation=2)
        with pytest.raises(Fenced, match="above 1 is alive"):
            claimed(connection, "shard-1", epoch, generation=1)


def test_a_claim_for_a_run_that_was_replaced_says_so(index: str) -> None:
    epoch = begin_run(index)
    begin_run(index)
    with session(index, "shard-1") as connection, pytest.raises(RunReplaced, match=r"run 1 .* 2"):
        claimed(connection, "shard-1", epoch)


def test_a_new_run_counts_generations_anew(index: str) -> None:
    with session(index, "shard-1") as connection:
        claimed(connection, "shard-1", begin_run(index), generation=7)
        claimed(connection, "shard-1", begin_run(index), generation=1)


def test_the_fence_of_one_actor_does_not_stop_another(index: str) -> None:
    epoch = begin_run(index)
    with writer(index, epoch, "shard-1") as living, session(index, "shard-2") as connection:
        claimed(connection, "shard-2", epoch, generation=5)
        assert living.apply(decoded(post()).changes).commits == 1


def test_a_gate_that_has_been_replaced_makes_no_users(index: str) -> None:
    epoch = begin_run(index)
    with session(index, "user_gate") as connection:
        claimed(connection, "user_gate", epoch, generation=2)
        with pytest.raises(Fenced):
            create_users(connection, Fence("user_gate", epoch, 1), ["did:plc:a"])
    assert nothing_is_written(index)
