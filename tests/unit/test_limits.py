"""What does not fit into the columns of an existing database: cut or dropped, never in the way."""

from typing import Any

import psycopg
import pytest

from actors.store.batch import AppliedCommit, Outcome
from actors.store.limits import NO_LIMITS, Limits, read_limits
from tests.author import Author, ref
from tests.prism import make_prism
from tests.writing import begin_run, decoded, make_index, writer


@pytest.fixture
def prism(database: str) -> str:
    return make_index(make_prism(database))


def limits_of(conninfo: str) -> Limits:
    with psycopg.connect(conninfo) as connection:
        return read_limits(connection)


def rows(conninfo: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(query.encode()).fetchall()


def apply(conninfo: str, *frames: bytes) -> Outcome:
    with writer(conninfo, begin_run(conninfo)) as writing:
        return writing.apply(decoded(frames).changes)


def long_key(ann: Author, collection: str, characters: int) -> str:
    """A record key with which the record's uri has this many characters."""
    start = ann.uri(f"{collection}/")
    return "k" * (characters - len(start))


def test_a_database_of_our_own_has_no_limits(database: str) -> None:
    make_index(database)
    limits = limits_of(database)
    assert not limits
    changes = decoded([Author(1).creates("app.bsky.feed.post/a", text="x" * 3000)]).changes
    assert limits.fit(changes) is changes
    assert NO_LIMITS.fit(changes) is changes


def test_limits_are_those_of_the_catalog(prism: str) -> None:
    limits = limits_of(prism)
    assert limits
    assert limits.lengths["posts"]["uri"] == 512
    assert limits.lengths["lists"]["purpose"] == 64
    assert "text" not in limits.lengths["posts"]
    assert limits.fits("notifications", "uri", "u" * 512)
    assert not limits.fits("notifications", "uri", "u" * 513)
    assert limits.fits("engine_pending", "uri", "u" * 2000)


def test_what_fits_is_left_as_it_is(prism: str) -> None:
    changes = decoded([Author(1).creates("app.bsky.feed.post/a", text="x" * 3000)]).changes
    (commit,) = changes
    assert list(limits_of(prism).fit(changes)) == [commit]


@pytest.mark.parametrize("letter", ["x", "é", "雪", "\N{SNOWMAN}\N{VARIATION SELECTOR-16}", "🏔"])
def test_a_text_is_cut_at_a_character_and_counted(prism: str, letter: str) -> None:
    ann = Author(1)
    name = letter * 300
    frame = ann.creates("app.bsky.actor.profile/self", displayName=name, description=name)
    outcome = apply(prism, frame)
    assert outcome.cuts == 1
    assert outcome.drops == []
    assert outcome.tallies()["cuts"] == 1
    assert rows(prism, "SELECT display_name, description FROM users") == [(name[:255], name)]


def test_every_text_of_a_record_is_cut(prism: str) -> None:
    ann = Author(1)
    outcome = apply(
        prism,
        ann.creates(
            "app.bsky.graph.list/a",
            name="n" * 256,
            purpose="p" * 65,
            createdAt="2024-01-01T00:00:00Z",
        ),
    )
    assert outcome.cuts == 2
    assert rows(prism, "SELECT name, purpose FROM lists") == [("n" * 255, "p" * 64)]


def test_a_cid_that_is_none_loses_no_like(prism: str) -> None:
    ann, ben = Author(1), Author(2)
    subject = {"uri": ben.uri("app.bsky.feed.post/a"), "cid": "c" * 1000}
    outcome = apply(prism, ann.creates("app.bsky.feed.like/a", subject=subject))
    assert (outcome.cuts, outcome.drops) == (1, [])
    assert rows(prism, "SELECT subject_cid FROM likes") == [("c" * 255,)]


def test_a_replay_counts_no_cut_again(prism: str) -> None:
    frame = Author(1).creates("app.bsky.actor.profile/self", displayName="n" * 300)
    assert apply(prism, frame).cuts == 1
    again = apply(prism, frame)
    assert (again.replayed, again.cuts) == (1, 0)


def test_a_key_that_is_too_long_makes_its_record_a_drop_and_no_other(prism: str) -> None:
    ann = Author(1)
    long = long_key(ann, "app.bsky.feed.post", 513)
    fits = long[1:]
    outcome = apply(
        prism,
        ann.frame(
            ann.put(f"app.bsky.feed.post/{long}", text="too long"),
            ann.put(f"app.bsky.feed.post/{fits}", text="fits"),
        ),
    )
    (drop,) = outcome.drops
    assert (drop.reason, drop.subject) == ("key_too_long", ann.uri(f"app.bsky.feed.post/{long}"))
    assert rows(prism, "SELECT text FROM posts") == [("fits",)]
    assert rows(prism, "SELECT posts_count FROM engine_user_aggregations") == [(1,)]


def test_a_subject_that_is_too_long_counts_nowhere(prism: str) -> None:
    ann, ben = Author(1), Author(2)
    post = ben.uri(f"app.bsky.feed.post/{long_key(ben, 'app.bsky.feed.post', 513)}")
    outcome = apply(prism, ann.creates("app.bsky.feed.like/a", subject=ref(post)))
    assert [drop.reason for drop in outcome.drops] == ["key_too_long"]
    for table in ("likes", "post_aggregations", "post_viewer_states", "engine_pending"):
        assert rows(prism, f"SELECT * FROM {table}") == [], table


def test_a_quote_that_is_too_long_for_its_table_makes_its_post_a_drop(prism: str) -> None:
    ann, ben = Author(1), Author(2)
    long = long_key(ann, "app.bsky.feed.post", 512)
    embed = {"$type": "app.bsky.embed.record", "record": ref(ben.uri("app.bsky.feed.post/b"))}
    outcome = apply(prism, ann.creates(f"app.bsky.feed.post/{long}", text="", embed=embed))
    assert [drop.reason for drop in outcome.drops] == ["key_too_long"]
    assert rows(prism, "SELECT * FROM posts") == []


def test_an_update_that_does_not_fit_leaves_nothing(prism: str) -> None:
    ann, ben = Author(1), Author(2)
    follow = ann.creates("app.bsky.graph.follow/a", subject=ben.did)
    assert apply(prism, follow).drops == []
    stranger = "did:web:" + ".".join(letter * 60 for letter in "abcd") + ".example"
    assert len(stranger) == 259
    update = ann.frame(ann.put("app.bsky.graph.follow/a", subject=stranger))
    outcome = apply(prism, update)
    assert [drop.reason for drop in outcome.drops] == ["key_too_long"]
    assert rows(prism, "SELECT * FROM follows") == []
    assert rows(prism, "SELECT * FROM engine_user_aggregations") == []


def test_a_did_that_is_too_long_fails_no_batch(prism: str) -> None:
    ann = Author(1)
    limits = limits_of(prism)
    (commit,) = decoded(
        [
            ann.frame(
                ann.put("app.bsky.actor.profile/self", displayName="Ann"),
                ann.put("app.bsky.feed.post/a", text=""),
            )
        ]
    ).changes
    assert isinstance(commit, AppliedCommit)
    did = "did:web:" + "a" * 250
    long = commit._replace(
        did=did,
        operations=[
            one._replace(
                key=one.key.replace(ann.did, did),
                row=one.row._replace(
                    values=tuple(
                        value.replace(ann.did, did) if isinstance(value, str) else value
                        for value in one.row.values
                    )
                ),
            )
            for one in commit.operations
            if one.row is not None
        ],
    )
    (fitting,) = limits.fit([long])
    assert isinstance(fitting, AppliedCommit)
    # Its profile cannot even be cleared: there is no such row.
    assert [(one.type.table, one.row) for one in fitting.operations] == [("posts", None)]
    assert [drop.reason for drop in fitting.drops] == ["key_too_long", "key_too_long"]
