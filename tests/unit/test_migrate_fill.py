"""What a migration fills in the database of an AppView that had workers of its own."""

from typing import Any

import psycopg
import pytest

from actors.store import migrate_fill
from actors.store.migrate import migrate
from tests.prism import (
    OLD,
    OLD_LIST,
    OLD_POST,
    columns,
    contents,
    live_with_workers,
    make_prism,
    rows,
    run,
)

RULE = "app.bsky.feed.threadgate#"


@pytest.mark.parametrize(
    ("mentions", "following", "members", "lists", "allow"),
    [
        (False, False, False, "[]", []),
        (True, False, False, "[]", [{"$type": f"{RULE}mentionRule"}]),
        (False, True, False, "[]", [{"$type": f"{RULE}followingRule"}]),
        (
            True,
            True,
            False,
            '["at://ignored"]',
            [{"$type": f"{RULE}mentionRule"}, {"$type": f"{RULE}followingRule"}],
        ),
        (
            False,
            False,
            True,
            '["at://b", 7, "at://a"]',
            [
                {"$type": f"{RULE}listRule", "list": "at://b"},
                {"$type": f"{RULE}listRule", "list": "at://a"},
            ],
        ),
        (False, False, True, "{}", []),
    ],
)
def test_an_old_gate_never_reads_as_everybody(
    database: str, mentions: bool, following: bool, members: bool, lists: str, allow: list[Any]
) -> None:
    make_prism(database)
    with psycopg.connect(database, autocommit=True) as appview:
        appview.execute(
            "INSERT INTO thread_gates (post_uri, owner_did, allow_mentions, allow_following,"
            " allow_list_members, allow_list_uris) VALUES (%s, %s, %s, %s, %s, %s::jsonb)",
            [OLD_POST, OLD, mentions, following, members, lists],
        )
    migrate(database)
    assert rows(database, "SELECT allow, hidden_replies FROM thread_gates") == [(allow, [])]


def test_a_gate_that_allows_everybody_stays_so(database: str) -> None:
    make_prism(database)
    migrate(database)
    run(
        database,
        "INSERT INTO thread_gates (post_uri, owner_did, hidden_replies)"
        f" VALUES ('{OLD_POST}', '{OLD}', '[]')",
    )
    assert not migrate(database)
    assert rows(database, "SELECT allow FROM thread_gates") == [(None,)]


def test_new_columns_of_old_rows_are_filled(used_prism: str) -> None:
    migrate(used_prism)
    assert rows(used_prism, "SELECT FROM verifications WHERE issuer_did IS NULL") == []
    assert rows(
        used_prism, "SELECT issuer_did FROM verifications WHERE subject_did = 'did:plc:liker1'"
    ) == [(OLD,)]
    assert rows(used_prism, "SELECT uri FROM notifications WHERE engine_record_uri IS NULL") == [
        ("of another kind",)
    ]
    assert rows(
        used_prism,
        "SELECT engine_record_uri FROM notifications WHERE author_did = 'did:plc:liker1'",
    ) == [("at://did:plc:liker1/app.bsky.feed.like/3jzfcijpj2z2a",)]
    (gate,) = rows(used_prism, f"SELECT allow FROM thread_gates WHERE post_uri = '{OLD_POST}'")
    assert gate == (
        [{"$type": f"{RULE}mentionRule"}, {"$type": f"{RULE}listRule", "list": OLD_LIST}],
    )


def test_the_pack_that_an_old_profile_names_is_the_one_it_came_by(database: str) -> None:
    make_prism(database)
    pack = f"at://{OLD}/app.bsky.graph.starterpack/a"
    for did, uri in (
        ("did:plc:a", pack),
        ("did:plc:b", "no uri"),
        ("did:plc:c", f"{pack}{'a' * 2000}"),
    ):
        run(
            database,
            "INSERT INTO users (did, handle, profile_record) VALUES"
            f" ('{did}', 'h', '{{\"joinedViaStarterPack\": {{\"uri\": \"{uri}\"}}}}')",
        )
    run(database, "INSERT INTO users (did, handle) VALUES ('did:plc:d', 'h')")
    joined = "SELECT did FROM users WHERE engine_joined_via IS NOT NULL"
    migrate(database)
    assert rows(database, joined) == [("did:plc:a",)]
    run(database, "UPDATE users SET engine_joined_via = NULL")
    assert not migrate(database)
    assert rows(database, joined) == []


def test_counts_are_there_for_all_that_has_any(used_prism: str) -> None:
    migrate(used_prism)
    assert rows(
        used_prism,
        "SELECT like_count, reply_count, bookmark_count FROM post_aggregations"
        f" WHERE post_uri = '{OLD_POST}'",
    ) == [(4, 0, 1)]
    assert rows(
        used_prism,
        "SELECT followers_count, follows_count, posts_count FROM engine_user_aggregations"
        f" WHERE did = '{OLD}'",
    ) == [(3, 0, 1)]
    assert rows(
        used_prism,
        "SELECT like_count FROM engine_subject_aggregations"
        f" WHERE uri = 'at://{OLD}/app.bsky.feed.generator/a'",
    ) == [(1,)]
    counts_are_those_of_the_rows(used_prism)


def counts_are_those_of_the_rows(conninfo: str) -> None:
    for table, column, people in (
        ("follows", "follower_did", "follows_count"),
        ("follows", "following_did", "followers_count"),
        ("posts", "author_did", "posts_count"),
    ):
        wrong = rows(
            conninfo,
            f"SELECT s.key FROM (SELECT {column} AS key, count(*) AS n FROM {table} GROUP BY 1) s"
            f" LEFT JOIN engine_user_aggregations a ON a.did = s.key"
            f" WHERE a.{people} IS DISTINCT FROM s.n",
        )
        assert wrong == [], column


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("slices", [1, 5, 23])
def test_a_migration_that_is_killed_goes_on_where_it_was(
    used_prism: str, monkeypatch: pytest.MonkeyPatch, slices: int
) -> None:
    before = columns(used_prism)
    old = contents(used_prism, before)
    fill = migrate_fill.fill
    left = slices

    def killed_soon(_name: str, _done: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    def fill_slowly(connection: Any, fills: Any) -> int:
        return fill(connection, fills, slice_rows=3, progress=killed_soon)

    monkeypatch.setattr(migrate_fill, "fill", fill_slowly)
    with pytest.raises(Killed):
        migrate(used_prism)
    assert rows(used_prism, "SELECT version FROM engine_schema") == []
    monkeypatch.setattr(migrate_fill, "fill", lambda one, two: fill(one, two, slice_rows=3))
    assert migrate(used_prism)
    assert not migrate(used_prism)
    for table, its in old.items():
        assert not set(its) - set(contents(used_prism, before)[table]), table
    counts_are_those_of_the_rows(used_prism)
    assert rows(used_prism, "SELECT FROM verifications WHERE issuer_did IS NULL") == []


def test_verifications_of_one_subject_by_one_issuer_are_kept_as_duplicates(prism: str) -> None:
    run(prism, "DROP INDEX uq_verifications_subject_did")
    keys = ("3b", "3a", "Z", "3c")
    for key in keys:
        run(
            prism,
            "INSERT INTO verifications (uri, cid, subject_did, handle, verified_at, created_at)"
            f" VALUES ('at://{OLD}/app.bsky.graph.verification/{key}', 'cid{key}', 'did:plc:s',"
            " 'handle', timestamp '2024-01-01 00:00:00.5', timestamp '2024-01-01')",
        )
    migrate(prism)
    indexed = rows(prism, "SELECT uri, issuer_did FROM verifications")
    start = f"at://{OLD}/app.bsky.graph.verification/"
    assert indexed == [(f"{start}3a", OLD)]
    kept = rows(
        prism,
        "SELECT uri, table_name, thing, cid, body ->> 'verified_at', body ->> 'issuer_did'"
        ' FROM engine_duplicates ORDER BY uri COLLATE "C"',
    )
    assert kept == [
        (
            f"{start}{key}",
            "verifications",
            f"{OLD} did:plc:s",
            f"cid{key}",
            "1704067200500000",
            OLD,
        )
        for key in ("3b", "3c", "Z")
    ]
    assert not migrate(prism)


def test_what_workers_write_after_a_migration_is_filled_by_the_next(prism: str) -> None:
    migrate(prism)
    live_with_workers(prism)
    assert migrate(prism)
    assert rows(prism, "SELECT FROM verifications WHERE issuer_did IS NULL") == []
    assert rows(prism, "SELECT FROM thread_gates WHERE hidden_replies IS NULL") == []
    assert not migrate(prism)
