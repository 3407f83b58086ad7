"""The notifier as a process: what shards leave for it is done once, whatever dies in between."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from actors.messages import MESSAGES, NotifierWork
from actors.notifier import Notifier, NotifierSettings
from actors.store import outbox
from actors.store.session import SessionSettings
from engine.control import Fail
from engine.topology import Edge, EdgeKind
from tests.notifying import NOTIFIER, Place, place
from tests.unit.engine_harness import Harness
from tests.unit.outbox_sender import Script, Sender

EPOCH = 7


@pytest.fixture
def here(module_database: str) -> Iterator[Place]:
    with place(module_database) as made:
        yield made


@contextmanager
def stage(here: Place, crash: str = "", outage_seconds: float = 60.0) -> Iterator[Harness]:
    """A notifier; no more can be written by the shard from now on."""
    here.connection.execute("UPDATE engine_epoch SET epoch = %s", [EPOCH])
    conninfo = here.connection.info.dsn
    session = SessionSettings(conninfo, statement_timeout_seconds=20, outage_seconds=outage_seconds)
    edges = [Edge("sender", NOTIFIER, EdgeKind.OFFER, messages=2000)]
    with Harness(edges, MESSAGES, crash) as harness:
        harness.spawn(NOTIFIER, Notifier, NotifierSettings(session))
        yield harness


def until_done(harness: Harness, here: Place) -> None:
    harness.until(lambda: outbox.depth(here.connection) == 0)


def likes(here: Place, amount: int) -> list[str]:
    post = here.post(here.account())
    return [here.like(here.account(), post) for _ in range(amount)]


def test_work_that_was_left_is_done_at_the_start_and_counted_by_reason(here: Place) -> None:
    made = likes(here, 3)
    follow = here.put(here.account(), "app.bsky.graph.follow", subject=here.account().did)
    here.leave(NotifierWork(records=(made[0], made[1])), NotifierWork(records=(made[2], follow)))
    with stage(here) as harness:
        until_done(harness, here)
        harness.until(
            lambda: (
                harness.metrics(NOTIFIER).value("notifications_made_total", reason="follow") == 1
            )
        )
        assert harness.metrics_now(NOTIFIER).value("notifications_made_total", reason="like") == 3
    assert len(here.rows()) == 4


def test_work_that_comes_as_a_message_is_done_and_what_was_made_can_go_again(here: Place) -> None:
    (like,) = likes(here, 1)
    here.look(like)
    (row,) = here.rows().values()
    here.connection.execute("DELETE FROM likes")
    with stage(here) as harness:
        harness.until(lambda: harness.metrics(NOTIFIER).value("outbox_reads_total") == 1)
        work = NotifierWork(gone=(like,))
        (left,) = here.leave(work)
        harness.spawn("sender", Sender, Script(((left, 1, work),)))
        until_done(harness, here)
        harness.until(
            lambda: (
                harness.metrics(NOTIFIER).value("notifications_removed_total", reason="like") == 1
            )
        )
    assert row["uri"] not in here.rows()


def test_a_gap_in_the_numbers_makes_the_notifier_look_into_the_outbox(here: Place) -> None:
    made = likes(here, 3)
    works = [NotifierWork(records=(like,)) for like in made]
    with stage(here) as harness:
        harness.until(lambda: harness.metrics(NOTIFIER).value("outbox_reads_total") == 1)
        rows = here.leave(*works)
        # The second of three was not sent along.
        said = ((rows[0], 1, works[0]), (rows[2], 3, works[2]))
        harness.spawn("sender", Sender, Script(said))
        until_done(harness, here)
    assert len(here.rows()) == 3


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_death_between_any_two_steps_loses_and_doubles_nothing(here: Place, point: str) -> None:
    made = likes(here, 3)
    works = [NotifierWork(records=(like,)) for like in made]
    rows = here.leave(*works)
    said = tuple(
        (row, at + 1, work) for at, (row, work) in enumerate(zip(rows, works, strict=True))
    )
    with stage(here, f"notifier.{point}@notifier:1") as harness:
        assert harness.bury(NOTIFIER) == -9
        assert outbox.depth(here.connection) == (3 if point == "before_commit" else 0)
        first = here.rows()
        assert len(first) == (0 if point == "before_commit" else 3)
        harness.start(NOTIFIER, *harness.made[NOTIFIER])
        harness.spawn("sender", Sender, Script(said))
        harness.until(lambda: bool(harness.reports("sender")))
        until_done(harness, here)
    after = here.rows()
    assert {row["engine_record_uri"] for row in after.values()} == set(made)
    assert len(after) == 3
    assert {uri: after[uri] for uri in first} == first


def test_a_notifier_outlasts_a_database_that_ends_its_sessions(here: Place) -> None:
    (like,) = likes(here, 1)
    with stage(here) as harness:
        harness.until(lambda: NOTIFIER in harness.up)
        here.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'skyshard notifier'"
            " AND pid <> pg_backend_pid()"
        )
        here.leave(NotifierWork(records=(like,)))
        harness.spawn("sender", Sender, Script((None,)))
        until_done(harness, here)
    assert len(here.rows()) == 1


def test_a_notifier_that_can_write_nothing_for_too_long_ends_the_run(here: Place) -> None:
    (like,) = likes(here, 1)
    here.leave(NotifierWork(records=(like,)))
    here.connection.execute(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
    )
    here.connection.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON notifications FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse()"
    )
    try:
        with stage(here, outage_seconds=0.3) as harness:
            harness.until(lambda: bool(harness.of(NOTIFIER, Fail)))
            (said,) = harness.of(NOTIFIER, Fail)
            assert harness.bury(NOTIFIER, crashed=False) == 0
    finally:
        here.connection.execute("DROP TRIGGER refuse ON notifications")
    assert isinstance(said, Fail)
    assert said.exit_code == 69
    assert outbox.depth(here.connection) == 1
