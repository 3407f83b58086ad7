"""An AppView numbers rows in 32 bits: it is told in time, and nothing is lost in the end."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from actors.label_client import LabelClient
from actors.messages import MESSAGES, NotifierWork
from actors.notifier import Notifier, NotifierSettings
from actors.store import ids, outbox
from actors.store.session import Connection, SessionSettings
from engine.control import Fail
from tests.notifying import NOTIFIER, Place, place
from tests.prism import make_prism
from tests.unit.engine_harness import Harness
from tests.unit.labeler_stage import CLIENT, DIDS, label_stage

EPOCH = 7
LAST = 2_147_483_647


@pytest.fixture
def prism(database: str) -> Iterator[Connection]:
    make_prism(database)
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def use(connection: Connection, table: str, last: int) -> None:
    connection.execute("SELECT setval(%s, %s)", [f"{table}_id_seq", last])


def test_the_part_that_is_used_follows_the_sequence_and_the_width_of_the_column(
    prism: Connection,
) -> None:
    assert ids.used(prism, "notifications") == 0.0
    use(prism, "notifications", LAST // 4)
    assert ids.used(prism, "notifications") == pytest.approx(0.25)
    # As old programs made it: a wide sequence for a narrow column.
    prism.execute("ALTER SEQUENCE notifications_id_seq AS bigint")
    assert ids.used(prism, "notifications") == pytest.approx(0.25)
    prism.execute("ALTER TABLE notifications ALTER COLUMN id TYPE bigint")
    assert ids.used(prism, "notifications") < 1e-9
    assert ids.used(prism, "users") == 0.0


@pytest.mark.parametrize("way", [0, 1])
def test_what_the_manual_says_gives_room(prism: Connection, way: int) -> None:
    use(prism, "notifications", LAST)
    prism.execute(_ways()[way].encode())
    assert ids.used(prism, "notifications") <= 0.5
    (given,) = prism.execute(
        "INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at)"
        " VALUES ('a', 'b', 'c', 'like', now()) RETURNING id"
    ).fetchall()
    assert given == ((-LAST - 1,), (LAST + 1,))[way]


def _ways() -> list[str]:
    """The blocks of SQL in the manual, from the first that alters a table on."""
    manual = (Path(__file__).parents[2] / "docs/existing-database.md").read_text()
    block = manual[manual.index("ALTER SEQUENCE") :].partition("```")[0]
    return block.split("\n\n")


@pytest.fixture
def here(database: str) -> Iterator[Place]:
    make_prism(database)
    with place(database) as made:
        yield made


def test_with_the_last_number_the_run_ends_and_what_is_to_be_told_waits(
    here: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    post = here.post(here.account())
    here.leave(NotifierWork(records=tuple(here.like(here.account(), post) for _ in range(3))))
    here.connection.execute("UPDATE engine_epoch SET epoch = %s", [EPOCH])
    use(here.connection, "notifications", LAST - 1)
    session = SessionSettings(here.connection.info.dsn, outage_seconds=60)
    with Harness([], MESSAGES) as harness:
        harness.spawn(NOTIFIER, Notifier, NotifierSettings(session))
        harness.until(lambda: bool(harness.of(NOTIFIER, Fail)))
        (said,) = harness.of(NOTIFIER, Fail)
        assert harness.bury(NOTIFIER, crashed=False) == 0
    assert isinstance(said, Fail)
    assert said.exit_code == 78
    assert "notifications_id_seq" in said.message
    assert outbox.depth(here.connection) == 1
    assert here.connection.execute("SELECT count(*) FROM engine_dead_letters").fetchone() == (0,)
    heard = capfd.readouterr()
    assert "running out" in heard.out + heard.err


def test_labels_that_no_event_can_be_numbered_for_wait_at_their_labeler(database: str) -> None:
    make_prism(database)
    with label_stage(database) as stage:
        (did, *_) = DIDS
        stage.add(did)
        use(stage.connection, "label_events", LAST)
        stage.publish(did, "one")
        stage.harness.spawn(CLIENT, LabelClient, stage.settings())
        stage.harness.until(lambda: bool(stage.harness.of(CLIENT, Fail)))
        (said,) = stage.harness.of(CLIENT, Fail)
        assert isinstance(said, Fail)
        assert said.exit_code == 78
        assert stage.cursor(did) is None
        assert stage.values() == []
