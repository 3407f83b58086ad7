"""`verify --repair` mends every kind of damage, alone and all at once, and touches nothing else."""

from collections.abc import Iterator
from itertools import pairwise

import psycopg
import pytest

from actors.store.embedded import EmbeddedPostgres
from actors.store.fence import LOCK_SQL
from actors.store.migrate import migrate
from actors.store.refusal import DatabaseRefused
from actors.store.repair import repair
from actors.store.verify import survey, verify
from actors.store.verify_walk import Step
from tests.prism import live_with_workers, make_prism, write_old
from tests.small_network import ABSENT, ANN, BEN, CAT, POST, QUOTE, REPLY, network
from tests.tables import differences, read_tables
from tests.unit.index_for_verify import empty_tables, fill, run, schema_of
from tests.unit.verify_damage import DAMAGE, LIKE, REPOST, WAITING

# What only the engine can finish: it is told to, and verify waits for it.
HANDED_OVER = ("records of deleted accounts", "records of refused accounts", "refused records")
CATS_FOLLOW = f"at://{CAT}/app.bsky.graph.follow/"


@pytest.fixture(scope="module")
def schema(embedded_server: EmbeddedPostgres) -> Iterator[str]:
    with schema_of(embedded_server, "test_repair") as conninfo:
        yield conninfo


@pytest.fixture
def index(schema: str) -> str:
    empty_tables(schema)
    fill(schema)
    return schema


def _one(conninfo: str, query: str) -> tuple[object, ...]:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None, query
    return row


def _everything(conninfo: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, with what the comparison of the index leaves out."""
    with psycopg.connect(conninfo) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
        return {
            name: connection.execute(f"SELECT * FROM {name} t ORDER BY t".encode()).fetchall()
            for (name,) in names
        }


def test_a_sound_index_is_left_as_it_is(index: str) -> None:
    before = _everything(index)
    result = repair(index)
    assert (result.mended.total(), result.left, result.walks) == (0, [], 1)
    assert _everything(index) == before


@pytest.mark.parametrize("check", DAMAGE)
def test_damage_is_mended(index: str, check: str) -> None:
    run(index, *DAMAGE[check][0])
    result = repair(index)
    # Another check may have come by it before.
    assert result.mended.total() > 0
    assert result.left == []
    assert survey(index, settle_seconds=0).differences == []


@pytest.mark.parametrize("slice_rows", [1, 7, 100_000])
def test_all_damage_at_once_is_mended_in_slices_of_any_size(index: str, slice_rows: int) -> None:
    # Some damage takes away what other damage changes.
    run(index, *(sql for sqls, _ in DAMAGE.values() for sql in sqls), must_change=False)
    assert verify(index) != []
    result = repair(index, slice_rows=slice_rows)
    assert result.left == []
    assert result.mended.total() > 30
    assert survey(index, settle_seconds=0).differences == []


@pytest.mark.parametrize(
    "check",
    [
        name
        for name in DAMAGE
        if name.endswith("_count")
        or name.startswith(("post_aggregations for", "engine_user_aggregations for"))
        or name in ("post_viewer_states.like_uri", "feed_items of posts", "quotes of posts")
    ],
)
def test_what_is_counted_or_made_anew_is_as_it_was(index: str, check: str) -> None:
    before = read_tables(index)
    run(index, *DAMAGE[check][0])
    repair(index)
    assert differences(read_tables(index), before) == []


def test_a_judgement_runs_down_the_whole_thread(index: str) -> None:
    # A chain of replies whose first names a root that is not its parent's.
    parents = [POST, *(f"{REPLY}{number}" for number in range(9))]
    for parent, reply in pairwise(parents):
        root = QUOTE if parent == POST else POST
        run(
            index,
            "INSERT INTO posts (uri, cid, author_did, text, parent_uri, root_uri, created_at)"
            f" VALUES ('{reply}', 'c', '{BEN}', '', '{parent}', '{root}', '2026-01-02')",
        )
    repair(index)
    assert verify(index) == []
    counted = _one(index, "SELECT count(*) FROM posts WHERE engine_invalid_reply")
    assert counted == (9,)


def test_what_a_gate_forbids_neither_counts_nor_notifies_once_it_is_mended(index: str) -> None:
    for check in ("posts.violates_thread_gate", "posts.violates_embedding_rules"):
        run(index, *DAMAGE[check][0])
    repair(index)
    counts = f"SELECT reply_count, quote_count FROM post_aggregations WHERE post_uri = '{POST}'"
    assert _one(index, counts) == (0, 0)
    left = _one(index, "SELECT count(*) FROM notifications WHERE reason IN ('reply', 'quote')")
    assert left == (0,)


def test_the_lowest_duplicate_takes_the_place_of_what_is_gone(index: str) -> None:
    uri = f"at://{BEN}/app.bsky.feed.repost/2"
    body = (
        f'{{"uri": "{uri}", "user_did": "{BEN}", "post_uri": "{POST}", "subject_cid": "c",'
        ' "via": null, "created_at": 1767322800000000, "commit_time": 1767322800000000,'
        ' "commit_seq": "7", "commit_rev": "r"}'
    )
    run(
        index,
        f"UPDATE engine_duplicates SET body = '{body}', cid = 'kept' WHERE uri = '{uri}'",
        f"DELETE FROM reposts WHERE uri = '{REPOST}'",
    )
    repair(index)
    assert verify(index) == []
    assert _one(index, "SELECT uri, commit_seq FROM reposts") == (uri, "7")
    assert _one(index, f"SELECT cid FROM feed_items WHERE uri = '{uri}'") == ("kept",)
    states = f"SELECT repost_uri FROM post_viewer_states WHERE viewer_did = '{BEN}'"
    assert _one(index, states) == (uri,)


def test_an_indexed_row_gives_way_to_a_duplicate_with_a_lower_key(index: str) -> None:
    lower, body = f"at://{BEN}/app.bsky.feed.repost/0", '{"post_uri": "%s", "user_did": "%s"'
    body = body % (POST, BEN) + f', "uri": "{lower}", "created_at": 0}}'
    run(
        index,
        "INSERT INTO engine_duplicates (uri, table_name, thing, cid, body)"
        f" VALUES ('{lower}', 'reposts', '{BEN} {POST}', 'low', '{body}')",
    )
    cid = _one(index, f"SELECT cid FROM feed_items WHERE uri = '{REPOST}'")
    repair(index)
    assert verify(index) == []
    assert _one(index, "SELECT uri FROM reposts") == (lower,)
    kept = f"SELECT cid, body ->> 'post_uri' FROM engine_duplicates WHERE uri = '{REPOST}'"
    assert _one(index, kept) == (*cid, POST)


def test_a_duplicate_that_is_no_row_goes_and_its_repository_is_fetched_again(index: str) -> None:
    run(index, f"DELETE FROM follows WHERE follower_did = '{ANN}'")
    repair(index)
    assert verify(index) == []
    step = f"SELECT out_of_step FROM engine_repos WHERE did = '{ANN}'"
    assert _one(index, step) == (True,)


def test_a_wait_for_what_is_there_ends_with_its_notification(index: str) -> None:
    run(index, *DAMAGE["engine_pending for what is there"][0])
    run(index, f"UPDATE likes SET user_did = '{BEN}' WHERE uri = '{WAITING}'")
    repair(index)
    query = f"SELECT recipient_did, reason FROM notifications WHERE engine_record_uri = '{WAITING}'"
    assert _one(index, query) == (CAT, "like")
    assert _one(index, "SELECT count(*) FROM engine_pending") == (0,)


def test_a_wait_that_ends_does_not_notify_who_muted_the_thread(index: str) -> None:
    run(index, *DAMAGE["engine_pending for what is there"][0])
    run(
        index,
        f"UPDATE likes SET user_did = '{BEN}' WHERE uri = '{WAITING}'",
        "INSERT INTO thread_mutes (uri, muter_did, thread_root_uri, created_at)"
        f" VALUES ('m', '{CAT}', '{QUOTE}', now())",
    )
    repair(index)
    query = f"SELECT count(*) FROM notifications WHERE engine_record_uri = '{WAITING}'"
    assert _one(index, query) == (0,)


def test_notifications_of_others_and_unread_marks_stay(index: str) -> None:
    run(
        index,
        "UPDATE notifications SET is_read = true",
        "UPDATE notifications SET cid = 'wrong' WHERE reason = 'mention'",
    )
    before = _one(index, "SELECT count(*) FROM notifications WHERE is_read")
    repair(index)
    assert verify(index) == []
    assert _one(index, "SELECT count(*) FROM notifications WHERE is_read") == before
    assert _one(index, "SELECT reason FROM notifications WHERE uri = 'theirs'") == ("like",)


def test_notifications_of_another_form_stay_as_long_as_their_record(index: str) -> None:
    # Migration finds the records of what an AppView's own workers have made.
    for ending in ("#like", "#notification/x"):
        run(
            index,
            "INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at,"
            f" engine_record_uri) VALUES ('{LIKE}{ending}', '{ANN}', 'x', 'like', now(), '{LIKE}')",
        )
    assert verify(index) == []
    run(index, f"DELETE FROM likes WHERE uri = '{LIKE}'")
    repair(index)
    query = f"SELECT count(*) FROM notifications WHERE engine_record_uri = '{LIKE}'"
    assert _one(index, query) == (0,)


def test_what_is_only_wrong_in_an_older_snapshot_is_not_touched(index: str) -> None:
    run(index, f"UPDATE post_aggregations SET like_count = 7 WHERE post_uri = '{POST}'")
    # Another counts right before the repair has the lock: it holds the fence until it has.
    with psycopg.connect(index) as other:
        other.execute(LOCK_SQL.encode())
        other.execute(
            f"UPDATE post_aggregations SET like_count = 2 WHERE post_uri = '{POST}'".encode()
        )

        def commit(step: Step) -> None:
            if step.check.startswith("post_aggregations.like_count"):
                other.commit()

        result = repair(index, progress=commit)
    assert result.left == []
    assert verify(index) == []


def test_counters_of_what_is_liked_but_not_there_are_made(index: str) -> None:
    run(index, "DELETE FROM post_aggregations", "DELETE FROM engine_user_aggregations")
    repair(index)
    assert verify(index) == []
    made = f"SELECT like_count FROM post_aggregations WHERE post_uri = '{ABSENT}'"
    assert _one(index, made) == (1,)


@pytest.mark.parametrize("check", HANDED_OVER)
def test_what_is_to_be_removed_is_handed_to_the_engine(index: str, check: str) -> None:
    statements, subject = DAMAGE[check]
    run(index, *statements)
    repair(index)
    reason = _one(index, f"SELECT reason FROM engine_purges WHERE subject = '{subject}'")
    assert reason == ("deleted" if "deleted" in check else "takedown",)


def test_what_takes_too_long_at_once_is_done_one_by_one(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.store.repair._STATEMENT_SECONDS", 0.001)
    run(
        index,
        "UPDATE post_aggregations SET like_count = like_count + 1",
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$",
        "CREATE TRIGGER slow BEFORE UPDATE ON post_aggregations FOR EACH ROW"
        " EXECUTE FUNCTION slow()",
        must_change=False,
    )
    try:
        assert repair(index).left == []
    finally:
        run(index, "DROP FUNCTION slow CASCADE", must_change=False)
    assert verify(index) == []


def test_a_writer_that_leaves_no_moment_is_a_refusal_that_says_so(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.store.repair._PATIENCE_SECONDS", 0.6)
    run(index, "UPDATE post_aggregations SET like_count = like_count + 1")
    with psycopg.connect(index) as writer:
        writer.execute(LOCK_SQL.encode())
        with pytest.raises(DatabaseRefused, match="left no moment for") as refused:
            repair(index)
    assert refused.value.exit_code == 75
    repair(index)
    assert verify(index) == []


@pytest.mark.parametrize("server", ["database", "other_postgres"])
def test_what_the_workers_of_an_appview_left_is_put_right(
    server: str, request: pytest.FixtureRequest
) -> None:
    conninfo = make_prism(request.getfixturevalue(server))
    write_old(conninfo, network().tables())
    live_with_workers(conninfo)
    migrate(conninfo)
    assert len(verify(conninfo)) > 10
    result = repair(conninfo, slice_rows=10)
    assert result.left == []
    assert verify(conninfo) == []
