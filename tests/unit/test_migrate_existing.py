"""Migrating the database of an AppView that had workers of its own: what changes, and what not."""

import threading

import psycopg
import pytest
from psycopg import errors

from actors.store import migrate_locks
from actors.store.author_range import author_range
from actors.store.migrate import migrate
from actors.store.migrate_catalog import read_catalog
from actors.store.migrate_indexes import wanted_indexes
from actors.store.notices import purge_sql
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.schema import SCHEMA_VERSION, TABLES
from tests.overlap import wait_until
from tests.prism import columns, contents, files, make_prism, rows, run


def definitions(conninfo: str) -> dict[str, str]:
    return dict(
        rows(conninfo, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")
    )


def test_nothing_is_lost_and_nothing_rewritten(used_prism: str) -> None:
    before = columns(used_prism)
    old, old_files = contents(used_prism, before), files(used_prism)
    assert migrate(used_prism)
    # The rows for what had no counts are the only ones that come.
    now = contents(used_prism, before)
    for table, its in old.items():
        assert not set(its) - set(now[table]), table
        assert table == "post_aggregations" or len(its) == len(now[table]), table
    now_files = files(used_prism)
    gone = {name for name in old_files if name not in now_files}
    assert gone == {"uq_verifications_subject_did"}
    assert {name: now_files[name] for name in old_files if name not in gone} == {
        name: number for name, number in old_files.items() if name not in gone
    }
    assert not migrate(used_prism)
    assert contents(used_prism, before) == now
    assert files(used_prism) == now_files


def test_every_column_is_there_and_the_old_ones_keep_their_types(prism: str) -> None:
    before = columns(prism)
    migrate(prism)
    after = columns(prism)
    for table, its in before.items():
        assert after[table][: len(its)] == its
    assert {(table, name) for table, its in after.items() for name, _ in its} >= {
        (table.name, column.name) for table in TABLES.values() for column in table.columns
    }


def test_an_index_is_made_only_where_none_serves(prism: str) -> None:
    before = definitions(prism)
    with psycopg.connect(prism) as connection:
        there = read_catalog(connection)
    migrate(prism)
    after = definitions(prism)
    with psycopg.connect(prism) as connection:
        catalog = read_catalog(connection)
    wanted = list(wanted_indexes(count_indexes=True))
    made = {one.name for one in wanted if one.name in after}
    for one in wanted:
        assert catalog.serves(one.shape, one.name), one.name
        assert (one.name in made) is not there.serves(one.shape, one.name), one.name
    # Of about ninety that a database of our own has, with those of the engine's tables.
    assert "likes_via_uri_skyshard" in made
    assert not made & {"likes_post_uri_skyshard", "users_handle_skyshard"}
    theirs = {one.name for one in wanted if one.shape.table in columns_before(before)}
    assert len(made & theirs) < 12
    assert {name for name in before if name not in after} == {"uq_verifications_subject_did"}


def columns_before(indexes: dict[str, str]) -> set[str]:
    """The tables that have an index."""
    return {definition.partition(" ON public.")[2].split()[0] for definition in indexes.values()}


@pytest.mark.parametrize(
    ("instead", "serves"),
    [
        ("CREATE INDEX ON likes (post_uri DESC)", True),
        ("CREATE INDEX ON likes (post_uri, created_at)", True),
        ("CREATE UNIQUE INDEX ON likes (post_uri, uri)", True),
        ("CREATE INDEX ON likes (post_uri) INCLUDE (user_did)", True),
        ("CREATE INDEX ON likes (created_at, post_uri)", False),
        ("CREATE INDEX ON likes (post_uri) WHERE via IS NULL", False),
        ("CREATE INDEX ON likes (lower(post_uri))", False),
        ("CREATE INDEX ON likes USING hash (post_uri)", False),
        ("CREATE INDEX ON likes (post_uri text_pattern_ops)", False),
        ('CREATE INDEX ON likes (post_uri COLLATE "POSIX")', False),
    ],
)
def test_an_index_serves_by_its_shape(database: str, instead: str, serves: bool) -> None:
    make_prism(database)
    run(database, "DROP INDEX idx_likes_post_uri", instead)
    migrate(database)
    assert ("likes_post_uri_skyshard" in definitions(database)) is not serves


def test_a_unique_key_in_another_order_of_columns_serves(prism: str) -> None:
    migrate(prism)
    assert "post_viewer_states_viewer_did_post_uri_skyshard" not in definitions(prism)
    run(prism, "DROP INDEX idx_post_viewer_states_viewer_did")
    migrate(prism)
    # Nothing begins with the viewer any more, which is what readers ask for.
    assert "post_viewer_states_viewer_did_post_uri_skyshard" in definitions(prism)


@pytest.mark.parametrize("constraint", [False, True])
def test_the_three_constraints_that_lose_data_go(prism: str, constraint: bool) -> None:
    if constraint:
        run(
            prism,
            "DROP INDEX uq_verifications_subject_did",
            "ALTER TABLE verifications ADD CONSTRAINT one UNIQUE (subject_did)",
        )
    kept = "SELECT conname FROM pg_constraint WHERE contype = 'u' AND conname <> 'one' ORDER BY 1"
    before = rows(prism, kept)
    assert len(rows(prism, "SELECT FROM pg_constraint WHERE contype = 'f'")) == 2
    migrate(prism)
    assert rows(prism, "SELECT FROM pg_constraint WHERE contype = 'f'") == []
    assert rows(prism, kept) == before
    subject = "did:plc:subject"
    values = ", ".join(
        f"('at://did:plc:{issuer}/app.bsky.graph.verification/a', 'c', '{subject}', 'h', now(),"
        f" now(), 'did:plc:{issuer}')"
        for issuer in ("one", "two")
    )
    insert = (
        "INSERT INTO verifications"
        " (uri, cid, subject_did, handle, verified_at, created_at, issuer_did) VALUES "
    )
    run(
        prism,
        insert + values,
        "INSERT INTO label_events (label_uri, action) VALUES ('at://gone', 'deleted')",
        "INSERT INTO user_settings (user_did) VALUES ('did:plc:nobody')",
    )
    with pytest.raises(errors.UniqueViolation):
        run(prism, insert + values.replace("verification/a", "verification/b"))


def test_keys_of_our_tables_compare_as_the_keys_that_are_there(prism: str) -> None:
    migrate(prism)
    # An index is of no use to a comparison under another collation than its own.
    with psycopg.connect(prism) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_hashjoin = off")
        connection.execute("SET enable_mergejoin = off")
        for theirs, ours in (("feed_generators", "uri"), ("users", "did")):
            engines = "engine_subject_aggregations" if ours == "uri" else "engine_repos"
            for first, second in ((theirs, engines), (engines, theirs)):
                plan = connection.execute(
                    f"EXPLAIN SELECT FROM {first} a CROSS JOIN LATERAL"
                    f" (SELECT FROM {second} b WHERE b.{ours} = a.{ours} OFFSET 0) s".encode()
                ).fetchall()
                assert "Index Cond: " in str(plan), plan


def test_the_records_of_an_author_are_a_range_under_any_collation(prism: str) -> None:
    migrate(prism)
    dids = ["did:plc:a", "did:plc:a0", "did:plc:A", "did:plc:aa", "did:plc:-a", "did:web:a"]
    for did in dids:
        for key in ("a", "Z", "~", "0", "-"):
            uri = f"at://{did}/app.bsky.graph.listitem/{key}"
            run(
                prism,
                "INSERT INTO list_items (uri, cid, list_uri, subject_did, created_at)"
                f" VALUES ('{uri}', 'c', '{uri}', '{did}', now())",
            )
    for did in dids:
        condition = author_range("uri", f"'{did}'")
        (found,) = rows(
            prism, f"SELECT count(*), count(DISTINCT subject_did) FROM list_items WHERE {condition}"
        )
        assert found == (5, 1), did
    with psycopg.connect(prism) as connection:
        connection.execute("SET enable_seqscan = off")
        for table, column in (
            ("list_items", "uri"),
            ("post_gates", "post_uri"),
            ("notifications", "engine_record_uri"),
            ("engine_duplicates", "uri"),
        ):
            condition = author_range(column, "$1::text")
            connection.execute("SET plan_cache_mode = force_generic_plan")
            connection.execute(
                f"PREPARE look_{table} AS SELECT FROM {table} WHERE {condition}".encode()
            )
            plan = connection.execute(f"EXPLAIN EXECUTE look_{table}('did:plc:a')".encode())
            assert "Index Cond" in str(plan.fetchall()), table


def test_the_notifications_of_a_purged_account_are_found_by_an_index(prism: str) -> None:
    migrate(prism)
    with psycopg.connect(prism) as connection:
        connection.execute("SET enable_seqscan = off")
        statement = purge_sql(10).replace("%b::text[]", "ARRAY[NULL::text]")
        plan = str(connection.execute(f"EXPLAIN {statement}".encode()).fetchall())
    assert "engine_record_uri" in plan.partition("Index Cond")[2], plan


def test_an_index_that_was_left_half_made_is_made_again(prism: str) -> None:
    migrate(prism)
    whole = definitions(prism)
    name = "likes_via_uri_skyshard"
    # What a build that is killed leaves; only a superuser can leave it without killing.
    run(
        prism,
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass",
    )
    assert migrate(prism, small_bytes=-1)
    assert definitions(prism) == whole
    assert rows(prism, "SELECT FROM pg_index WHERE NOT indisvalid") == []


def test_indexes_of_large_tables_are_made_beside_writers(used_prism: str) -> None:
    done: list[bool] = []
    with psycopg.connect(used_prism) as appview:
        appview.execute("UPDATE likes SET via = NULL WHERE via IS NOT NULL")
        appview.execute("INSERT INTO generic_records VALUES ('u', 'c', 'd', 't', '{}', now())")
        thread = threading.Thread(target=lambda: done.append(migrate(used_prism, small_bytes=-1)))
        # The lock of a write keeps ALTER TABLE waiting, not those who write meanwhile.
        thread.start()
        wait_until(lambda: waiting(used_prism) > 0, "migrating")
        with psycopg.connect(used_prism) as another:
            another.execute("SET statement_timeout = '30s'")
            another.execute("INSERT INTO generic_records VALUES ('v', 'c', 'd', 't', '{}', now())")
        appview.commit()
    thread.join(120)
    assert done == [True]
    assert "likes_via_uri_skyshard" in definitions(used_prism)
    assert rows(used_prism, "SELECT FROM pg_index WHERE NOT indisvalid") == []


def waiting(conninfo: str) -> int:
    (row,) = rows(
        conninfo,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return int(row[0])


def test_a_table_that_others_hold_is_asked_for_again_and_given_up_in_the_end(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_prism(database)
    monkeypatch.setattr(migrate_locks, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(migrate_locks, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(migrate_locks, "PATIENCE_SECONDS", 0.2)
    with psycopg.connect(database) as appview:
        appview.execute("LOCK TABLE notifications IN ACCESS SHARE MODE")
        with pytest.raises(DatabaseRefused, match="notifications") as refused:
            migrate(database)
        assert refused.value.reason is Reason.IN_THE_WAY
    assert migrate(database)
    assert rows(database, "SELECT version FROM engine_schema") == [(SCHEMA_VERSION,)]


def test_a_database_of_our_first_version_comes_to_this_one(database: str) -> None:
    migrate(database)
    version_1 = (
        "ALTER TABLE posts DROP COLUMN engine_invalid_reply",
        "ALTER TABLE users DROP COLUMN engine_account_status, DROP COLUMN engine_joined_via",
        "ALTER TABLE engine_repos DROP COLUMN withheld",
        "ALTER TABLE notifications DROP COLUMN engine_record_uri",
        "DROP TABLE engine_pending, engine_accounts, engine_takedowns, engine_purges",
        "DROP INDEX likes_via_uri_skyshard, reposts_via_uri_skyshard",
        "UPDATE engine_schema SET version = 1",
    )
    whole, names = definitions(database), columns(database)
    run(database, *version_1)
    assert migrate(database)
    assert definitions(database) == whole
    assert {table: sorted(its) for table, its in columns(database).items()} == {
        table: sorted(its) for table, its in names.items()
    }
    assert rows(database, "SELECT version FROM engine_schema") == [(SCHEMA_VERSION,)]
    assert rows(
        database,
        "SELECT collation_name FROM information_schema.columns"
        " WHERE table_name = 'notifications' AND column_name = 'engine_record_uri'",
    ) == [("C",)]
