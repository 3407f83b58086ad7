"""Records that PostgreSQL refuses, and such as might make it: each costs itself and nothing else.

What it refuses are real records that pass every check of ours: two keys of 2,000 bytes each that
one index would have to hold, and a text whose words do not fit in a search vector.
"""

import random
from collections.abc import Sequence

import pytest

from actors.atproto import cbor
from actors.store import tallies
from actors.store.batch import Change, Outcome
from actors.store.bisect import apply_bisecting
from actors.store.writer import BatchRefused, Writer
from bench.network_account import Write
from tests import tables
from tests.author import TIME, Author, ref
from tests.writing import begin_run, decoded, empty, make_index, reference_of, session, writer

POST, LABEL = "app.bsky.feed.post", "com.atproto.label.label"
WORK = [("user_gate", b"work")]


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def noise(size: int) -> str:
    """Letters that no compression makes shorter."""
    chance = random.Random(size)
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))


def huge_label(author: Author, key: str) -> Write:
    """A label whose subject and value are too long for the index that holds both."""
    fields = {"src": author.did, "uri": noise(2000), "val": noise(1999), "cts": TIME}
    return author.put(f"{LABEL}/{key}", **fields)


def apply(writing: Writer, frames: Sequence[bytes]) -> Outcome:
    batch = decoded(frames)
    counted = {f"events.{kind}": count for kind, count in batch.events.items()}
    return apply_bisecting(writing, batch.changes, WORK, counted, lambda _seconds: None)


def refused(outcome: Outcome) -> list[str]:
    return [drop.subject for drop in outcome.drops if drop.reason == "database_refused"]


def written(everything: tables.Tables) -> tables.Tables:
    """What a writer writes; users and notifications are made by others."""
    return tables.without(everything, "users", "notifications")


def same_as(index: str, frames: Sequence[bytes]) -> None:
    """The tables hold what the reference makes of these frames; of guards, only the revs."""
    ours, theirs = written(tables.read_tables(index)), reference_of(frames).tables()
    for side in (ours, theirs):
        for row in side["engine_repos"].values():
            del row["data"]
    assert tables.differences(written(theirs), ours) == []


def test_a_refused_record_goes_alone_and_its_siblings_are_applied(index: str) -> None:
    for place in range(5):
        empty(index)
        people = [Author(number) for number in range(5)]
        twins = [Author(number) for number in range(5)]
        frames, wanted = [], []
        for number, (person, twin) in enumerate(zip(people, twins, strict=True)):
            posts = [
                [one.put(f"{POST}/{key}", text=f"of {number}") for key in "ab"]
                for one in (person, twin)
            ]
            spoilt = [huge_label(person, "x")] if number == place else []
            frames.append(person.frame(posts[0][0], *spoilt, posts[0][1]))
            wanted.append(twin.frame(*posts[1]))
        epoch = begin_run(index)
        # The first thing that the connection does, so that nothing is prepared yet.
        with writer(index, epoch) as writing:
            outcome = apply(writing, frames)
            again = apply(writing, frames)
        with session(index, "observer") as connection:
            counted = tallies.read(connection, epoch)
            left = connection.execute(
                "SELECT count(*) FROM engine_outbox WHERE receiver = 'user_gate'"
            ).fetchone()
        assert refused(outcome) == [people[place].uri(f"{LABEL}/x")]
        assert counted["drop.database_refused"] == 1
        for_gate = [sent for sent in outcome.sent if sent.receiver == "user_gate"]
        assert (outcome.commits, len(for_gate)) == (5, 1)
        assert (again.commits, again.replayed, again.drops) == (0, 5, [])
        assert (counted["commits"], counted["events.commit"]) == (5, 10)
        assert left == (2,)
        same_as(index, wanted)


def test_a_refused_update_ends_the_record_that_was_there(index: str) -> None:
    author = Author(1)
    first = author.creates(f"{LABEL}/x", src=author.did, uri="u", val="v")
    with writer(index, begin_run(index)) as writing:
        apply(writing, [first])
        assert tables.read_tables(index)["labels"]
        outcome = apply(writing, [author.frame(huge_label(author, "x"))])
    assert refused(outcome) == [author.uri(f"{LABEL}/x")]
    held = tables.read_tables(index)
    assert not held["labels"]
    assert not held["engine_repos"][(author.did,)]["out_of_step"]


def test_several_refused_records_of_a_batch_each_go_alone(index: str) -> None:
    one, other = Author(1), Author(2)
    frames = [
        one.frame(huge_label(one, "x"), one.put(f"{POST}/a", text="a"), huge_label(one, "y")),
        other.frame(huge_label(other, "z")),
        other.creates(f"{POST}/b", text="b"),
    ]
    with writer(index, begin_run(index)) as writing:
        outcome = apply(writing, frames)
    uris = [one.uri(f"{LABEL}/x"), one.uri(f"{LABEL}/y"), other.uri(f"{LABEL}/z")]
    assert refused(outcome) == uris
    assert len(tables.read_tables(index)["posts"]) == 2
    assert outcome.commits == 3


def test_a_text_with_too_many_words_for_a_search_vector_goes_alone(index: str) -> None:
    author = Author(1)
    words = noise(900_000)
    text = " ".join(words[at : at + 5] for at in range(0, len(words) - 5, 5))[:990_000]
    frame = author.frame(
        author.put(f"{POST}/long", text=text), author.put(f"{POST}/short", text="words")
    )
    with writer(index, begin_run(index), search=True) as writing:
        outcome = apply(writing, [frame])
    assert refused(outcome) == [author.uri(f"{POST}/long")]
    assert list(tables.read_tables(index)["posts"]) == [(author.uri(f"{POST}/short"),)]


def test_a_like_by_an_account_with_a_huge_did_goes_alone(index: str) -> None:
    author = Author(1, did=f"did:x:{noise(1900)}")
    subject = ref(f"at://did:x:{noise(1400)}/{POST}/{noise(500)}")
    frame = author.frame(
        author.put("app.bsky.feed.like/a", subject=subject),
        author.put("app.bsky.graph.follow/a", subject="did:plc:short"),
    )
    with writer(index, begin_run(index)) as writing:
        outcome = apply(writing, [frame])
    assert refused(outcome) == [author.uri("app.bsky.feed.like/a")]
    held = tables.read_tables(index)
    assert len(held["follows"]) == 1
    assert not held["post_aggregations"]
    assert not held["post_viewer_states"]


def test_records_that_are_refused_only_together_all_go(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(_writer: Writer, _changes: Sequence[Change], *_others: object) -> str | None:
        return None

    monkeypatch.setattr(Writer, "trial", trial)
    author = Author(1)
    frame = author.frame(author.put(f"{POST}/a", text="a"), huge_label(author, "x"))
    with writer(index, begin_run(index)) as writing:
        outcome = apply(writing, [frame])
    assert refused(outcome) == [author.uri(f"{POST}/a"), author.uri(f"{LABEL}/x")]
    assert outcome.commits == 1
    assert tables.read_tables(index)["engine_repos"]


def test_a_batch_that_is_refused_for_no_record_of_it_is_no_drop(index: str) -> None:
    work = [("user_gate\0", b"work")]
    author = Author(1)
    with writer(index, begin_run(index)) as writing:
        with pytest.raises(BatchRefused):
            apply_bisecting(writing, [], work, {}, lambda _seconds: None)
        frame = author.creates(f"{POST}/a", text="a")
        with pytest.raises(BatchRefused):
            apply_bisecting(writing, decoded([frame]).changes, work, {}, lambda _seconds: None)
        assert not tables.read_tables(index)["engine_repos"]
        assert apply(writing, [frame]).commits == 1


def test_hostile_values_never_reach_the_database_and_cost_their_record_alone(index: str) -> None:
    author = Author(1)
    valid = cbor.encode({"$type": "com.example.thing", "createdAt": TIME, "value": "XXX"})
    things = {
        "surrogates": valid.replace(b"XXX", b"\xed\xa0\x80"),
        "large": cbor.encode({"$type": "com.example.thing", "value": "x" * 1_000_000}),
        "float": cbor.encode({"$type": "com.example.thing", "value": 1.5}),
        "integer": cbor.encode({"$type": "com.example.thing", "value": 2**53}),
        "nul": valid.replace(b"XXX", b"a\0b"),
        "escaped": cbor.encode({"$type": "com.example.thing", "value": "\\u0000 \\ud800 \\x00"}),
        "highest": cbor.encode({"$type": "com.example.thing", "value": "\U0010ffff\uffff\x7f\x01"}),
        "oldest": cbor.encode({"$type": "com.example.thing", "createdAt": "0001-01-01T00:00:00Z"}),
        "latest": cbor.encode({"$type": "com.example.thing", "createdAt": "9999-12-31T23:59:59Z"}),
        "keys": cbor.encode({"$type": "com.example.thing", "k" * 8192: {"": "empty key"}}),
    }
    writes = [Write("create", f"com.example.thing/{key}", block) for key, block in things.items()]
    frames = [author.frame(*writes)]
    with writer(index, begin_run(index)) as writing:
        outcome = apply(writing, frames)
    assert {drop.subject.rpartition("/")[2]: drop.reason for drop in outcome.drops} == {
        "surrogates": "invalid_utf8",
        "large": "record_too_large",
        "float": "float",
        "integer": "integer_too_large",
    }
    same_as(index, frames)
    assert len(tables.read_tables(index)["generic_records"]) == len(things) - 4


def test_a_trial_that_meets_a_lock_is_tried_again(index: str) -> None:
    author = Author(1)
    frame = author.frame(huge_label(author, "x"), author.put(f"{POST}/a", text="a"))
    waited: list[float] = []
    with (
        writer(index, begin_run(index)) as writing,
        session(index, "stranger") as stranger,
    ):
        writing._connection.execute("SET lock_timeout = '50ms'")
        stranger.autocommit = False
        stranger.execute("LOCK TABLE posts IN EXCLUSIVE MODE")

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                stranger.rollback()

        outcome = apply_bisecting(writing, decoded([frame]).changes, [], {}, wait)
    assert refused(outcome) == [author.uri(f"{LABEL}/x")]
    assert len(waited) >= 3


def test_a_row_of_another_program_that_stands_in_the_way_costs_the_record_alone(
    index: str,
) -> None:
    author = Author(1)
    quoted = ref(author.uri(f"{POST}/other"))
    embed = {"$type": "app.bsky.embed.record", "record": quoted}
    frame = author.frame(
        author.put(f"{POST}/a", text="a", embed=embed), author.put(f"{POST}/b", text="b")
    )
    with session(index, "stranger") as stranger:
        stranger.execute(
            "INSERT INTO quotes (uri, cid, post_uri, quoted_uri, created_at)"
            " VALUES ('of its own making', '', %s, %s, now())",
            [author.uri(f"{POST}/a"), quoted["uri"]],
        )
    with writer(index, begin_run(index)) as writing:
        outcome = apply(writing, [frame])
    assert refused(outcome) == [author.uri(f"{POST}/a")]
    assert list(tables.read_tables(index)["posts"]) == [(author.uri(f"{POST}/b"),)]
