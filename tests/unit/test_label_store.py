"""Labels in the database: one row a key, cursors that never lead, expiry, and who is told."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from actors.atproto import label as labels
from actors.atproto.label import Label, Refusal
from actors.store import labelers
from actors.store.fence import Fence, Fenced
from actors.store.labelers import LabelerState
from actors.store.labels import CHANNEL, Cursor, LabelBatch, LabelWriter
from actors.store.session import Connection
from actors.store.writer import Writer
from tests.label_index import CLIENT, LabelIndex, here, index
from tests.prism import make_prism
from tests.servers.labels import LabelKey
from tests.writing import begin_run, claimed, make_index, session

__all__ = ["here", "index"]  # fixtures

SRC = "did:web:labeler.example.com"
OTHER = "did:web:other.example.com"
ENDPOINT = "wss://labeler.example.com"
SUBJECT = "did:web:subject.example.com"
MICROS = 1_767_225_600_000_000
NOW = MICROS + 60_000_000
KEY = LabelKey()
CID = "bafyreid7hzescfizm3pnc4t35sv34e235pv7i46irj5cxwhfhfe47zwiae"
OTHER_CID = "bafyreibjifzpqj6o6wcq3hejh7y4z4z2vmiklkvykc57tw3pcbx3kxifpm"


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.fixture
def connection(here: LabelIndex) -> Connection:
    return here.connection


@pytest.fixture
def fence(here: LabelIndex) -> Fence:
    return here.fence


@pytest.fixture
def writer(here: LabelIndex) -> LabelWriter:
    labelers.begin(here.connection, here.fence, SRC, ENDPOINT)
    return here.writer


def label(val: str = "spam", second: int = 0, *, src: str = SRC, **fields: Any) -> Label:
    subject = fields.pop("uri", SUBJECT)
    cts = f"2026-01-01T00:00:{second:02}.000Z"
    return labels.read(KEY.make(src, subject, val, cts=cts, **fields), src, NOW)


def batch(*given: Label, after: int | None = None, seq: int | None = None) -> LabelBatch:
    cursors = {} if seq is None else {SRC: Cursor(ENDPOINT, after, seq)}
    return LabelBatch(list(given), cursors)


def rows(connection: Connection) -> list[Any]:
    return connection.execute(
        "SELECT src, subject, cid, val, neg, cts, exp FROM labels ORDER BY val, src"
    ).fetchall()


def events(connection: Connection) -> list[str]:
    return [
        action
        for (action,) in connection.execute(
            "SELECT action FROM label_events ORDER BY id"
        ).fetchall()
    ]


def cursor(connection: Connection) -> int | None:
    return labelers.states(connection, [SRC])[SRC].cursor


def test_five_labels_of_one_millisecond_are_five_rows(
    connection: Connection, writer: LabelWriter
) -> None:
    written = writer.write(batch(*(label(f"v{n}") for n in range(5)), seq=1), NOW)
    assert [row[3] for row in rows(connection)] == ["v0", "v1", "v2", "v3", "v4"]
    assert written.outcomes == {"applied": 5}
    assert events(connection) == ["created"] * 5
    assert cursor(connection) == 1


def test_a_row_has_all_of_its_label(connection: Connection, writer: LabelWriter) -> None:
    made = label(exp="2027-01-01T00:00:00Z")
    writer.write(batch(made), NOW)
    row = connection.execute(
        "SELECT uri, neg, sig, ver, cid, cts, exp, created_at::text, engine_expires::text"
        " FROM labels"
    ).fetchone()
    assert row == (
        made.row_uri,
        False,
        made.sig,
        1,
        None,
        made.cts,
        made.exp,
        "2026-01-01 00:00:00",
        "2027-01-01 00:00:00",
    )


def test_a_negation_retracts_the_label_of_its_own_source_only(
    connection: Connection, writer: LabelWriter
) -> None:
    writer.write(batch(label(), label(src=OTHER), label("porn")), NOW)
    writer.write(batch(label(second=1, neg=True)), NOW)
    assert [(row[0], row[3], row[4]) for row in rows(connection)] == [
        (SRC, "porn", False),
        (SRC, "spam", True),
        (OTHER, "spam", False),
    ]
    assert events(connection) == ["created"] * 3 + ["deleted"]


def test_a_negation_retracts_the_label_of_its_own_version_only(
    connection: Connection, writer: LabelWriter
) -> None:
    writer.write(batch(label(cid=CID), label()), NOW)
    writer.write(batch(label(cid=OTHER_CID, second=1, neg=True)), NOW)
    assert events(connection) == ["created"] * 2
    writer.write(batch(label(cid=CID, second=1, neg=True)), NOW)
    assert {(row[2], row[4]) for row in rows(connection)} == {
        (CID, True),
        (OTHER_CID, True),
        (None, False),
    }
    assert events(connection) == ["created", "created", "deleted"]


def test_times_at_the_ends_of_what_can_be_told_are_kept(
    connection: Connection, writer: LabelWriter
) -> None:
    oldest, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    made = labels.read(KEY.make(SRC, SUBJECT, "old", cts=oldest, exp=last), SRC, NOW)
    assert writer.write(batch(made), NOW).outcomes == {"applied": 1}
    assert writer.write(batch(made), NOW).outcomes == {"outdated": 1}
    assert [(row[5], row[6]) for row in rows(connection)] == [(oldest, last)]


def test_a_replayed_older_label_changes_nothing(
    connection: Connection, writer: LabelWriter
) -> None:
    writer.write(batch(label(), label(second=1, neg=True)), NOW)
    before = rows(connection)
    assert writer.write(batch(label()), NOW).outcomes == {"outdated": 1}
    assert rows(connection) == before
    assert events(connection) == ["created", "deleted"]


def test_batches_of_one_leave_the_same_as_one_batch(
    connection: Connection, writer: LabelWriter, index: str
) -> None:
    given = [label(), label(second=2, neg=True), label(second=1), label(second=3)]
    for each in given:
        writer.write(batch(each), NOW)
    one_by_one = rows(connection), events(connection)
    connection.execute("DELETE FROM labels")
    connection.execute("DELETE FROM label_events")
    writer.write(batch(*given), NOW)
    assert (rows(connection), events(connection)) == one_by_one


def test_a_label_expires_by_the_sweep_and_its_events_outlive_it(
    connection: Connection, writer: LabelWriter
) -> None:
    expires = "2026-01-01T00:02:00Z"
    writer.write(batch(label(exp=expires), label("kept", exp="2026-01-01T01:00:00Z")), NOW)
    assert writer.expire(NOW, 10) == 0
    later = MICROS + 120_000_000
    assert writer.expire(later, 10) == 1
    assert writer.expire(later, 10) == 0
    assert [(row[3], row[4]) for row in rows(connection)] == [("kept", False), ("spam", True)]
    # The same label comes again: it has expired all the same, and an older one is older.
    writer.write(batch(label(exp=expires)), later)
    assert events(connection) == ["created", "created", "deleted"]
    writer.write(batch(label(second=1)), later)
    assert events(connection)[-1] == "created"
    connection.execute("DELETE FROM labels")
    assert len(events(connection)) == 4


def test_the_sweep_takes_no_more_than_it_is_told_and_finds_them_by_an_index(
    connection: Connection, writer: LabelWriter
) -> None:
    for each in range(5):
        writer.write(batch(label(f"v{each}", exp=f"2026-01-01T00:02:0{each}Z")), NOW)
    later = MICROS + 180_000_000
    assert [writer.expire(later, 2) for _ in range(4)] == [2, 2, 1, 0]
    connection.execute("SET enable_seqscan = off")
    plan = connection.execute(
        "EXPLAIN SELECT uri FROM labels WHERE engine_expires IS NOT NULL AND NOT neg"
        " AND engine_expires <= now() ORDER BY engine_expires LIMIT 5"
    ).fetchall()
    assert any("labels_engine_expires" in line for (line,) in plan), plan


def test_labels_that_were_records_are_kept_beside_those_of_streams_and_expire_too(
    connection: Connection, writer: LabelWriter
) -> None:
    record = f"at://{SRC}/com.atproto.label.label/3mbd354vwo42b"
    connection.execute(
        "INSERT INTO labels (uri, src, subject, val, created_at, exp, engine_expires)"
        " VALUES (%s, %s, %s, 'spam', '2026-01-01', 'x', '2026-01-01 00:01')",
        [record, SRC, SUBJECT],
    )
    writer.write(batch(label(second=1, neg=True)), NOW)
    assert sorted(row[4] for row in rows(connection)) == [False, True]
    assert writer.expire(NOW, 10) == 1
    assert connection.execute("SELECT neg FROM labels WHERE uri = %s", [record]).fetchone() == (
        True,
    )


def test_who_listens_is_told_the_ids_of_the_events(
    index: str, connection: Connection, writer: LabelWriter
) -> None:
    with psycopg.connect(index, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}".encode())
        writer.write(batch(label("a"), label("b")), NOW)
        writer.write(batch(label("a")), NOW)
        writer.write(batch(label("a", second=1, neg=True)), NOW)
        told = [note.payload.split() for note in listener.notifies(timeout=120, stop_after=2)]
        assert not list(listener.notifies(timeout=0))
    ids = [
        str(number) for (number,) in connection.execute("SELECT id FROM label_events ORDER BY id")
    ]
    assert told == [ids[:2], [ids[2], ids[2]]]


@pytest.mark.parametrize("point", ["written", "before_commit", "after_commit"])
def test_a_death_between_any_two_steps_loses_no_label_behind_the_cursor(
    connection: Connection, fence: Fence, writer: LabelWriter, point: str
) -> None:
    def die(name: str) -> None:
        if name == point:
            raise Killed

    writer.write(batch(label("first"), seq=1), NOW)
    dying = LabelWriter(connection, fence, crash_point=die)
    with pytest.raises(Killed):
        dying.write(batch(label("second"), label("third"), after=1, seq=2), NOW)
    durable = cursor(connection) == 2
    assert durable == (point == "after_commit")
    assert len(rows(connection)) == (3 if durable else 1)
    # What follows from the cursor comes again, and may do so from before it.
    after = writer.write(batch(label("second"), label("third"), after=1, seq=2), NOW)
    assert len(rows(connection)) == 3
    assert events(connection) == ["created"] * 3
    assert cursor(connection) == 2
    assert bool(after.stuck) == durable


def test_a_cursor_is_moved_only_from_where_the_reader_began(
    connection: Connection, fence: Fence, writer: LabelWriter
) -> None:
    assert not writer.write(batch(seq=5), NOW).stuck
    connection.execute("UPDATE engine_labelers SET cursor = NULL")
    assert writer.write(batch(label(), after=5, seq=6), NOW).stuck == {SRC}
    assert cursor(connection) is None
    labelers.begin(connection, fence, SRC, "wss://elsewhere.example.com")
    assert writer.write(batch(seq=1), NOW).stuck == {SRC}
    assert labelers.states(connection, [SRC, OTHER]) == {
        SRC: LabelerState("wss://elsewhere.example.com", None)
    }


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO engine_takedowns (subject) VALUES (%s)",
        "INSERT INTO engine_purges (subject, reason) VALUES (%s, 'deleted')",
        "INSERT INTO engine_accounts (did, active) VALUES (%s, false)",
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
    ],
)
def test_nothing_is_taken_of_a_labeler_that_is_withheld_and_its_cursor_stays(
    connection: Connection, writer: LabelWriter, statement: str
) -> None:
    connection.execute(statement.encode(), [SRC])
    assert labelers.withheld(connection, [SRC, OTHER]) == {SRC}
    written = writer.write(batch(label(), label(src=OTHER), seq=1), NOW)
    assert [row[0] for row in rows(connection)] == [OTHER]
    assert written.refused == {Refusal.SOURCE_WITHHELD: 1}
    assert written.withheld == written.stuck == {SRC}
    assert cursor(connection) is None


def test_one_label_can_be_taken_down(connection: Connection, writer: LabelWriter) -> None:
    connection.execute("INSERT INTO engine_takedowns (subject) VALUES (%s)", [label().row_uri])
    written = writer.write(batch(label(), label("porn"), seq=1), NOW)
    assert [row[3] for row in rows(connection)] == ["porn"]
    assert written.refused == {Refusal.TAKEN_DOWN: 1}
    assert cursor(connection) == 1


def test_the_longest_that_is_allowed_fits_into_every_index(
    connection: Connection, writer: LabelWriter
) -> None:
    longest = "https://example.com/" + "".join(chr(33 + n * 7 % 90) for n in range(1_980))
    made = label("v" * 128, uri=longest, cid="b" + "a" * 250)
    assert len(made.uri) == labels.MAX_SUBJECT
    assert writer.write(batch(made), NOW).outcomes == {"applied": 1}


def test_a_writer_that_was_replaced_writes_nothing(
    connection: Connection, fence: Fence, writer: LabelWriter
) -> None:
    Fence(CLIENT, fence.epoch, fence.generation + 1).claim(connection)
    steps: list[Callable[[], object]] = [
        lambda: writer.write(batch(label(), seq=1), NOW),
        lambda: writer.expire(NOW, 5),
        lambda: labelers.begin(connection, fence, SRC, "wss://x.example.com"),
        lambda: labelers.note(connection, fence, SRC, "x"),
    ]
    for step in steps:
        with pytest.raises(Fenced):
            step()
    assert rows(connection) == []


def test_problems_are_noted_and_go_when_labels_come(
    connection: Connection, fence: Fence, writer: LabelWriter
) -> None:
    labelers.note(connection, fence, SRC, "it is away")
    labelers.note(connection, fence, OTHER, "it is away")
    writer.write(batch(seq=1), NOW)
    labelers.note(connection, fence, OTHER, None)
    found = connection.execute("SELECT did, problem FROM engine_labelers ORDER BY did").fetchall()
    assert found == [(SRC, None), (OTHER, None)]


def test_of_the_declared_those_that_are_read_come_first_then_the_liked(
    connection: Connection, fence: Fence, writer: LabelWriter
) -> None:
    for did, likes in (("did:web:a.com", 1), ("did:web:b.com", 9), (SRC, 0)):
        connection.execute(
            "INSERT INTO labeler_services (uri, cid, creator_did, policies, like_count, created_at)"
            " VALUES (%s, 'c', %s, '{}', %s, now())",
            [f"at://{did}/app.bsky.labeler.service/self", did, likes],
        )
    writer.write(batch(seq=1), NOW)
    assert labelers.declared(connection, 2) == [SRC, "did:web:b.com"]
    labelers.note(connection, fence, SRC, "it is away")
    assert labelers.declared(connection, 2) == ["did:web:b.com", "did:web:a.com"]


def test_a_purge_of_the_labeler_sets_its_cursor_back(
    index: str, connection: Connection, fence: Fence, writer: LabelWriter
) -> None:
    # What others say of the labeler is theirs.
    writer.write(batch(label(), label(src=OTHER), label(src=OTHER, uri=SRC), seq=1), NOW)
    connection.execute("INSERT INTO engine_purges (subject, reason) VALUES (%s, 'takedown')", [SRC])
    with session(index, "shard-0") as opened:
        shard = Writer(opened, claimed(opened, "shard-0", fence.epoch))
        while shard.purge_slice(SRC) is not None:
            pass
    assert {row[:2] for row in rows(connection)} == {(OTHER, SUBJECT), (OTHER, SRC)}
    assert cursor(connection) is None
    assert events(connection) == ["created"] * 3


def test_an_appviews_tables_take_what_fits_into_their_columns(database: str) -> None:
    make_index(make_prism(database))
    with session(database, CLIENT) as opened:
        here = LabelWriter(opened, claimed(opened, CLIENT, begin_run(database)))
        longest = label("long", uri="https://example.com/" + "a" * 492)
        written = here.write(
            batch(label(), label(second=1, neg=True), longest, label("x", uri=longest.uri + "a")),
            NOW,
        )
        assert written.refused == {Refusal.SUBJECT_TOO_LONG: 1}
        assert [row[3] for row in rows(opened)] == ["long", "spam"]
        opened.execute("DELETE FROM labels")
        assert len(events(opened)) == 3
