"""`verify` finds every kind of damage, and nothing where nothing is wrong."""

from collections.abc import Iterator
from itertools import groupby

import psycopg
import pytest
from psycopg import sql

from actors.store.embedded import EmbeddedPostgres
from actors.store.schema import TABLES
from actors.store.verify import CHECKS, Difference, Step, survey, verify
from actors.store.verify_walk import build_query, session, those
from tests.corpus.reference_run import tables as recorded_tables
from tests.small_network import ABSENT, ANN, BEN, CAT, MEDIA_QUOTE, POST, QUOTE, REPLY
from tests.tables import differences, read_tables, write_tables
from tests.unit.index_for_verify import empty_tables, fill, run, schema_of
from tests.unit.verify_damage import DAMAGE


@pytest.fixture(scope="module")
def schema(embedded_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with the tables of the index, for all tests of this file."""
    with schema_of(embedded_server, "test_verify") as conninfo:
        yield conninfo


@pytest.fixture
def empty(schema: str) -> str:
    """That database without any row."""
    empty_tables(schema)
    return schema


@pytest.fixture
def index(empty: str) -> str:
    """That database with the small network in it."""
    fill(empty)
    return empty


def test_a_sound_index_has_no_differences(index: str) -> None:
    assert read_tables(index)["engine_duplicates"].keys(), "there are duplicates to check"
    assert [str(difference) for difference in verify(index)] == []


@pytest.mark.parametrize("slice_rows", [1, 7, 100_000])
def test_slices_of_any_size_see_every_row(index: str, slice_rows: int) -> None:
    run(index, "UPDATE post_aggregations SET like_count = like_count + 1")
    wrong = {
        difference.key
        for difference in verify(index, slice_rows=slice_rows)
        if difference.check == "post_aggregations.like_count"
    }
    assert wrong == {POST, REPLY, QUOTE, MEDIA_QUOTE, ABSENT}


def test_the_recorded_network_as_the_reference_indexes_it_has_no_differences(empty: str) -> None:
    write_tables(empty, recorded_tables())
    assert differences(read_tables(empty), recorded_tables()) == []
    assert [str(difference) for difference in verify(empty, slice_rows=500)] == []


def test_each_check_has_its_damage() -> None:
    assert DAMAGE.keys() == {check.name for check in CHECKS}


@pytest.mark.parametrize("check", DAMAGE)
def test_damage_is_found(index: str, check: str) -> None:
    statements, key = DAMAGE[check]
    run(index, *statements)
    found = [difference for difference in verify(index) if difference.check == check]
    assert key in {difference.key for difference in found}
    assert all(str(difference).startswith(f"{difference.key}: ") for difference in found)
    assert all("{" not in str(difference) for difference in found)


def test_a_duplicate_of_a_thing_that_is_not_indexed_is_found(index: str) -> None:
    run(index, f"DELETE FROM follows WHERE follower_did = '{ANN}'")
    uri = f"at://{ANN}/app.bsky.graph.follow/2"
    (found,) = [
        difference
        for difference in verify(index)
        if difference.check == "engine_duplicates of follows"
    ]
    assert found == Difference(
        "engine_duplicates of follows",
        uri,
        f"{ANN} {BEN}",
        "no row",
        "a row with a lower record key",
    )
    assert str(found) == (
        f"{uri}: it is kept as a duplicate in follows of {ANN} {BEN}, where the indexed row is"
        " no row, not a row with a lower record key"
    )


def test_flags_that_the_appview_set_keep_a_viewer_state(index: str) -> None:
    run(
        index,
        "INSERT INTO post_viewer_states (post_uri, viewer_did, pinned)"
        f" VALUES ('{POST}', '{ANN}', true)",
    )
    assert verify(index) == []


def test_users_that_work_in_the_outbox_will_make_are_not_missing(index: str) -> None:
    run(
        index,
        f"DELETE FROM users WHERE did = '{CAT}'",
        "INSERT INTO engine_outbox (receiver, body) VALUES ('user_gate', '')",
    )
    found = survey(index)
    assert found.differences == []
    assert {(one.check, one.key) for one in found.unsettled} >= {
        ("users for posts.author_did", CAT)
    }
    run(index, "DELETE FROM engine_outbox")
    assert {difference.key for difference in verify(index)} == {CAT}


def test_what_was_only_wrong_for_a_moment_is_not_reported(index: str) -> None:
    run(index, "UPDATE post_aggregations SET like_count = like_count + 1")
    mended: list[bool] = []

    def mend(step: Step) -> None:
        if step.check == "" and not mended:
            mended.append(True)
            run(
                index,
                "UPDATE post_aggregations SET like_count = like_count - 1"
                f" WHERE post_uri <> '{POST}'",
            )

    assert [difference.key for difference in verify(index, progress=mend)] == [POST]
    assert mended


def test_a_check_stops_after_the_most_differences(index: str) -> None:
    run(index, "UPDATE post_aggregations SET like_count = like_count + 1")
    assert len(verify(index, most=3, slice_rows=2)) == 3


def test_verify_reads_only(index: str) -> None:
    before = read_tables(index)
    run(index, f"DELETE FROM likes WHERE user_did = '{BEN}'")
    after = read_tables(index)
    assert verify(index) != []
    assert read_tables(index) == after != before


def test_progress_tells_how_far_it_is(index: str) -> None:
    steps: list[Step] = []
    verify(index, progress=steps.append, slice_rows=2)
    groups = [name for name, _ in groupby(step.check for step in steps)]
    assert groups[-1] == ""
    assert set(groups[:-1]) <= {check.name for check in CHECKS}
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert [step.rows for step in steps] == sorted(step.rows for step in steps)
    assert (steps[-1].done, steps[-1].checks) == (len(CHECKS), len(CHECKS))


def test_slices_read_an_index_of_the_column_they_cut(index: str) -> None:
    # Without one, each slice of a large table would read all of it.
    covered = 0
    with psycopg.connect(index) as connection:
        for check in CHECKS:
            leading = connection.execute(
                sql.SQL(
                    "SELECT a.attname FROM pg_index i JOIN pg_attribute a"
                    " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
                    " WHERE i.indrelid = {}::regclass"
                ).format(check.table)
            ).fetchall()
            assert check.table in TABLES
            assert (check.column,) in leading, check.name
            covered += 1
    assert covered == len(CHECKS)


def test_no_query_reads_a_whole_table(index: str) -> None:
    # Each slice would take as long as all of them.
    with session(index, "test") as connection:
        connection.execute("ANALYZE")
        for check in CHECKS:
            suspects = [Difference(check.name, POST, BEN, "", "")]
            slice_ = sql.SQL("{} > 'at://a' AND {} <= 'at://b'").format(
                *[sql.Identifier("d", check.column)] * 2
            )
            for condition in (slice_, those(check, suspects)):
                rows = connection.execute(
                    sql.SQL("EXPLAIN ") + build_query(check, condition)
                ).fetchall()
                plan = "\n".join(line for (line,) in rows)
                assert "Seq Scan" not in plan, f"{check.name}: {plan}"
                assert "Hash Join" not in plan, f"{check.name}: {plan}"
                assert "hashed SubPlan" not in plan, f"{check.name}: {plan}"
