"""Each rule of the judgements, on rows put there by hand, through the statement that writes flags.

Every test also asks the registry's look, before and after: it finds what the judgement changes, and
nothing when that is done.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from actors.store.arrays import text_array
from actors.store.judgement import (
    JUDGE_SQL,
    LOOK_POSTS_SQL,
    LOOK_QUOTES_SQL,
    LOOK_REPLIES_SQL,
    LOOK_THREADS_SQL,
)
from actors.store.session import Connection, SessionSettings, open_session
from actors.store.writer import SESSION
from tests.writing import make_index

OWNER, ANN, BOB = "did:plc:owner", "did:plc:ann", "did:plc:bob"
GATE = "app.bsky.feed.threadgate#"
DISABLE = [{"$type": "app.bsky.feed.postgate#disableRule"}]


class Rows:
    """Makes rows, and judges."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def post(
        self,
        author: str,
        key: str,
        parent: str | None = None,
        root: str | None = None,
        *,
        mentions: tuple[str, ...] = (),
        quotes: str | None = None,
        facets: Any = None,
    ) -> str:
        uri = f"at://{author}/app.bsky.feed.post/{key}"
        if mentions:
            features = [
                {"$type": "app.bsky.richtext.facet#mention", "did": did} for did in mentions
            ]
            facets = [{"index": {}, "features": features}]
        self.connection.execute(
            "INSERT INTO posts (uri, cid, author_did, text, parent_uri, root_uri, facets,"
            " created_at) VALUES (%s, 'c', %s, '', %s, %s, %s, now())",
            [uri, author, parent, root or parent, json.dumps(facets) if facets else None],
        )
        if quotes is not None:
            self.connection.execute(
                "INSERT INTO quotes (uri, cid, post_uri, quoted_uri, created_at)"
                " VALUES (%s, 'c', %s, %s, now())",
                [f"{uri}#quote", uri, quotes],
            )
        return uri

    def gate(self, post: str, allow: Any) -> None:
        self.connection.execute(
            "INSERT INTO thread_gates (post_uri, owner_did, allow) VALUES (%s, %s, %s)"
            " ON CONFLICT (post_uri) DO UPDATE SET allow = excluded.allow",
            [post, OWNER, None if allow is None else json.dumps(allow)],
        )

    def post_gate(self, post: str, rules: Any) -> None:
        self.connection.execute(
            "INSERT INTO post_gates (post_uri, embedding_rules) VALUES (%s, %s)",
            [post, json.dumps(rules)],
        )

    def follow(self, follower: str, followed: str) -> None:
        self.connection.execute(
            "INSERT INTO follows (uri, follower_did, following_did, created_at)"
            " VALUES (%s, %s, %s, now())",
            [f"at://{follower}/app.bsky.graph.follow/{followed}", follower, followed],
        )

    def member(self, of_list: str, did: str) -> None:
        self.connection.execute(
            "INSERT INTO list_items (uri, cid, list_uri, subject_did, created_at)"
            " VALUES (%s, 'c', %s, %s, now())",
            [f"at://{OWNER}/app.bsky.graph.listitem/{did}", of_list, did],
        )

    def look(self, sql: str, *uris: str) -> list[tuple[str, str]]:
        rows = self.connection.execute(sql.encode(), [text_array(uris)]).fetchall()
        return [row for row in rows if row[0] is not None]

    def judge(self, *uris: str) -> list[tuple[Any, ...]]:
        """Judge posts; returns what changed."""
        differed = {uri for uri, _ in self.look(LOOK_POSTS_SQL, *uris)}
        changed = self.connection.execute(JUDGE_SQL.encode(), [text_array(uris)]).fetchall()
        assert {row[0] for row in changed} == differed
        return changed

    def flags(self, uri: str) -> tuple[bool, bool, bool]:
        """Invalid reply, thread gate, embedding: of a post, judged now."""
        self.judge(uri)
        assert self.look(LOOK_POSTS_SQL, uri) == []
        row = self.connection.execute(
            "SELECT engine_invalid_reply, violates_thread_gate, violates_embedding_rules"
            " FROM posts WHERE uri = %s",
            [uri],
        ).fetchone()
        assert row is not None
        return row[0], row[1], row[2]

    def invalid(self, uri: str) -> bool:
        invalid, gated, embeds = self.flags(uri)
        assert (gated, embeds) == (False, False)
        return invalid

    def gated(self, uri: str) -> bool:
        invalid, gated, embeds = self.flags(uri)
        assert (invalid, embeds) == (False, False)
        return gated

    def embeds(self, uri: str) -> bool:
        invalid, gated, embeds = self.flags(uri)
        assert (invalid, gated) == (False, False)
        return embeds


@pytest.fixture
def rows(database: str) -> Iterator[Rows]:
    make_index(database)
    with open_session(SessionSettings(database), "test") as connection:
        for name, value in SESSION.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        yield Rows(connection)


def reply_under(rows: Rows, allow: Any, author: str = ANN, **root: Any) -> str:
    """A reply of an author to a post with a gate."""
    top = rows.post(OWNER, "root", **root)
    rows.gate(top, allow)
    return rows.post(author, "reply", top)


def test_a_reply_with_its_parents_root_is_valid(rows: Rows) -> None:
    top = rows.post(OWNER, "root")
    first = rows.post(ANN, "first", top)
    second = rows.post(BOB, "second", first, top)
    assert not rows.invalid(top)
    assert not rows.invalid(first)
    assert not rows.invalid(second)


def test_a_reply_with_another_root_than_its_parents_is_invalid_and_so_are_those_below(
    rows: Rows,
) -> None:
    top, other = rows.post(OWNER, "root"), rows.post(OWNER, "other")
    first = rows.post(ANN, "first", top)
    stray = rows.post(BOB, "stray", first, other)
    below = rows.post(ANN, "below", stray, other)
    lowest = rows.post(BOB, "lowest", below, other)
    assert not rows.invalid(first)
    # In one statement each is judged by its parent as that was before.
    assert [row[0] for row in rows.judge(stray, below, lowest)] == [stray]
    assert rows.look(LOOK_REPLIES_SQL, stray) == [(below, ANN)]
    assert rows.invalid(below)
    assert rows.look(LOOK_REPLIES_SQL, below) == [(lowest, BOB)]
    assert rows.invalid(lowest)
    assert sorted(rows.look(LOOK_THREADS_SQL, other)) == []


def test_a_reply_whose_root_is_a_reply_itself_is_invalid(rows: Rows) -> None:
    top = rows.post(OWNER, "root")
    first = rows.post(ANN, "first", top)
    assert rows.invalid(rows.post(BOB, "second", first, first))


def test_while_parent_or_root_is_missing_a_reply_is_valid(rows: Rows) -> None:
    top = rows.post(OWNER, "root")
    missing = f"at://{OWNER}/app.bsky.feed.post/missing"
    first = rows.post(ANN, "first", top)
    assert not rows.invalid(rows.post(BOB, "no-root", first, missing))
    assert not rows.invalid(rows.post(BOB, "no-parent", missing, top))
    assert not rows.invalid(rows.post(BOB, "neither", missing))
    assert rows.look(LOOK_REPLIES_SQL, missing) == []
    rows.post(OWNER, "missing")
    uri = f"at://{BOB}/app.bsky.feed.post/"
    assert rows.look(LOOK_THREADS_SQL, missing) == [(f"{uri}no-root", BOB)]
    assert rows.look(LOOK_REPLIES_SQL, missing) == [(f"{uri}no-parent", BOB)]
    # What was judged invalid is valid again when its root goes.
    assert rows.invalid(f"{uri}no-root")
    rows.connection.execute("DELETE FROM posts WHERE uri = %s", [missing])
    assert rows.look(LOOK_THREADS_SQL, missing) == [(f"{uri}no-root", BOB)]
    assert not rows.invalid(f"{uri}no-root")


def test_a_gate_without_allow_lets_everybody_in_and_one_with_an_empty_allow_nobody(
    rows: Rows,
) -> None:
    reply = reply_under(rows, None)
    assert not rows.gated(reply)
    top = f"at://{OWNER}/app.bsky.feed.post/root"
    rows.gate(top, [])
    assert rows.look(LOOK_THREADS_SQL, top) == [(reply, ANN)]
    assert rows.gated(reply)
    rows.connection.execute("DELETE FROM thread_gates")
    assert not rows.gated(reply)


def test_the_owner_of_a_gate_may_always_reply(rows: Rows) -> None:
    assert not rows.gated(reply_under(rows, [], OWNER))


def test_a_gate_is_for_all_replies_of_its_thread_and_of_no_other(rows: Rows) -> None:
    first = reply_under(rows, [], OWNER)
    top = f"at://{OWNER}/app.bsky.feed.post/root"
    assert rows.gated(rows.post(ANN, "below", first, top))
    assert not rows.gated(rows.post(ANN, "own"))
    rows.gate(first, [])
    assert not rows.gated(rows.post(OWNER, "below", first, top))


def test_while_the_root_is_missing_its_gate_says_nothing(rows: Rows) -> None:
    missing = f"at://{OWNER}/app.bsky.feed.post/missing"
    rows.gate(missing, [])
    reply = rows.post(ANN, "reply", missing)
    assert not rows.gated(reply)
    rows.post(OWNER, "missing")
    assert rows.gated(reply)


@pytest.mark.parametrize(
    ("facets", "violates"),
    [
        (None, True),
        ([], True),
        ([{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": BOB}]}], True),
        ([{"features": [{"$type": "app.bsky.richtext.facet#link", "did": ANN}]}], True),
        ([{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": ANN}]}], False),
        (["x", {"features": "x"}, {"features": [1, None]}, {}], True),
        ([{"features": [7, {"$type": "app.bsky.richtext.facet#mention", "did": ANN}]}, 7], False),
    ],
)
def test_the_mention_rule_lets_in_whom_the_root_mentions(
    rows: Rows, facets: Any, violates: bool
) -> None:
    allow = [{"$type": f"{GATE}mentionRule"}]
    assert rows.gated(reply_under(rows, allow, facets=facets)) is violates


def test_a_mention_is_no_way_in_without_its_rule(rows: Rows) -> None:
    assert rows.gated(reply_under(rows, [{"$type": f"{GATE}listRule"}], mentions=(ANN,)))


@pytest.mark.parametrize(
    ("rule", "follower", "followed"),
    [("followingRule", OWNER, ANN), ("followerRule", ANN, OWNER)],
)
def test_following_and_follower_rules_look_at_one_direction_each(
    rows: Rows, rule: str, follower: str, followed: str
) -> None:
    reply = reply_under(rows, [{"$type": f"{GATE}{rule}"}])
    assert rows.gated(reply)
    rows.follow(followed, follower)
    assert rows.gated(reply)
    rows.follow(follower, followed)
    assert not rows.gated(reply)


def test_the_list_rule_lets_in_the_members_of_its_lists(rows: Rows) -> None:
    lists = [f"at://{OWNER}/app.bsky.graph.list/{key}" for key in "abc"]
    allow = [{"$type": f"{GATE}listRule", "list": of_list} for of_list in lists[:2]]
    reply = reply_under(rows, [*allow, 7, {"$type": "other", "list": lists[2]}])
    assert rows.gated(reply)
    rows.member(lists[2], ANN)
    rows.member(lists[0], BOB)
    assert rows.gated(reply)
    rows.connection.execute("DELETE FROM list_items")
    rows.member(lists[1], ANN)
    assert not rows.gated(reply)


def test_one_rule_that_lets_in_is_enough(rows: Rows) -> None:
    rules = ("mentionRule", "followingRule", "followerRule", "listRule")
    reply = reply_under(rows, [{"$type": f"{GATE}{rule}"} for rule in rules])
    assert rows.gated(reply)
    rows.follow(ANN, OWNER)
    assert not rows.gated(reply)


def test_rules_that_are_not_known_let_nobody_in(rows: Rows) -> None:
    assert rows.gated(reply_under(rows, [{"$type": "x"}, "mentionRule", [], None]))


def test_a_post_gate_forbids_quotes_but_not_ones_own(rows: Rows) -> None:
    quoted = rows.post(OWNER, "quoted")
    quote, own = rows.post(ANN, "quote", quotes=quoted), rows.post(OWNER, "own", quotes=quoted)
    assert not rows.embeds(quote)
    rows.post_gate(quoted, DISABLE)
    assert rows.look(LOOK_QUOTES_SQL, quoted) == [(quote, ANN)]
    assert rows.embeds(quote)
    assert not rows.embeds(own)
    rows.connection.execute("DELETE FROM post_gates")
    assert not rows.embeds(quote)


def test_a_post_gate_counts_though_the_quoted_post_is_missing(rows: Rows) -> None:
    missing = f"at://{OWNER}/app.bsky.feed.post/missing"
    rows.post_gate(missing, DISABLE)
    assert rows.embeds(rows.post(ANN, "quote", quotes=missing))


def test_a_post_gate_with_other_rules_forbids_nothing(rows: Rows) -> None:
    quoted = rows.post(OWNER, "quoted")
    rows.post_gate(quoted, [{"$type": "app.bsky.feed.postgate#otherRule"}])
    assert not rows.embeds(rows.post(ANN, "quote", quotes=quoted))


def test_a_judgement_tells_what_it_changed_and_what_that_was_before(rows: Rows) -> None:
    quoted = rows.post(OWNER, "quoted")
    rows.post_gate(quoted, DISABLE)
    top = rows.post(OWNER, "root")
    rows.gate(top, [])
    reply = rows.post(ANN, "reply", top, quotes=quoted)
    untouched = rows.post(BOB, "other", quotes=f"at://{BOB}/app.bsky.feed.post/x")
    flags = (False, False, False, False, True, True)
    assert rows.judge(reply, reply, untouched) == [(reply, ANN, top, quoted, *flags)]
    assert rows.judge(reply, untouched) == []
    rows.connection.execute("DELETE FROM thread_gates")
    flags = (False, True, True, False, False, True)
    assert rows.judge(reply) == [(reply, ANN, top, quoted, *flags)]


def test_no_statement_ever_scans_a_table_or_hashes_one(rows: Rows) -> None:
    """Not even one that was planned while the tables were empty."""
    for sql in (JUDGE_SQL, LOOK_POSTS_SQL, LOOK_REPLIES_SQL, LOOK_THREADS_SQL, LOOK_QUOTES_SQL):
        rows.connection.execute(f"PREPARE judgement (text[]) AS {sql.replace('%b', '$1')}".encode())
        lines = rows.connection.execute("EXPLAIN EXECUTE judgement ('{a,b}')").fetchall()
        rows.connection.execute("DEALLOCATE judgement")
        plan = "\n".join(line for (line,) in lines)
        for whole in ("Seq Scan", "Hash", "hashed", "Merge"):
            assert whole not in plan, plan
        # Every table is reached by a condition on an index, not by reading an index whole, and a
        # pair by both of its halves: one may be in many lists, one list have many members.
        scans = plan.count("Index Scan") + plan.count("Index Only Scan")
        assert scans == plan.count("Index Cond:") > 0, plan
        pairs = re.findall(r" on (?:follows|list_items) .*\n +(Index Cond: .*)", plan)
        assert len(pairs) >= 3, plan
        assert all(" AND " in pair for pair in pairs), plan


def test_rules_that_a_gate_does_not_have_cost_no_lookup(rows: Rows) -> None:
    reply = reply_under(rows, [{"$type": f"{GATE}mentionRule"}])
    text = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {LOOK_POSTS_SQL}"
    with psycopg.ClientCursor(rows.connection) as cursor:
        lines = cursor.execute(text.replace("%b", "%s").encode(), [[reply]]).fetchall()
    plan = [line for (line,) in lines]
    for table in ("follows", "list_items"):
        of_table = [line for line in plan if f" on {table} " in line]
        assert of_table, plan
        assert all("never executed" in line for line in of_table), plan
