"""Two writers at the same rows: transactions that really overlap, in either order."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from actors.store.fence import Fence
from actors.store.verify import verify
from bench.network_account import Write
from tests import tables
from tests.author import Author, ref, reply
from tests.histories import Sent
from tests.overlap import SECONDS, Applying, Pause
from tests.settling import settle
from tests.writing import (
    GATE,
    Crew,
    begin_run,
    claimed,
    empty,
    make_index,
    make_users,
    reference_of,
    session,
)

POST, LIKE, REPLY = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.post"
GENERATOR = "app.bsky.feed.generator"


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def begin(index: str) -> int:
    """Begin a run. All claim at once: a claim waits for every transaction that is under way."""
    epoch = begin_run(index)
    with session(index, GATE) as connection:
        for actor in (GATE, "shard-1", "shard-2"):
            claimed(connection, actor, epoch)
    return epoch


def finish(index: str, epoch: int) -> None:
    make_users(index, Fence(GATE, epoch, 1))


def check(index: str, epoch: int, frames: Sequence[bytes]) -> None:
    finish(index, epoch)
    settle(index)
    expected = reference_of(frames).tables()
    assert tables.differences(expected, tables.read_tables(index)) == []
    assert verify(index) == []


def overlap(index: str, before: Sequence[bytes], pair: Sequence[Sequence[bytes]], at: str) -> None:
    """Apply `before`, then the second batch while the first is held at its crash point."""
    epoch = begin(index)
    Applying(index, epoch, "shard-1", before).done()
    pause = Pause(at)
    first = Applying(index, epoch, "shard-1", pair[0], pause)
    assert pause.reached.wait(SECONDS)
    second = Applying(index, epoch, "shard-2", pair[1])
    second.wait_for_it()
    pause.release.set()
    assert first.done().retries == second.done().retries == 0
    check(index, epoch, [*before, *pair[0], *pair[1]])


Scene = Callable[[], tuple[list[bytes], list[bytes], list[bytes]]]


def _thread() -> tuple[Author, Author, str, str]:
    """The author of a thread's root, one who answers, the root's uri and the answer's."""
    ann, ben = Author(1), Author(2)
    return ann, ben, ann.uri(f"{POST}/root"), ben.uri(f"{POST}/reply")


def a_reply_and_the_like_of_it() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    before = [ann.creates(f"{POST}/root", text="root")]
    likes = [ann.creates(f"{LIKE}/a", subject=ref(answer))]
    return before, likes, [ben.creates(f"{POST}/reply", text="reply", reply=reply(root))]


def a_like_goes_while_its_reply_comes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    before = [ann.creates(f"{LIKE}/a", subject=ref(answer))]
    comes = [ben.creates(f"{POST}/reply", text="reply", reply=reply(root))]
    return before, [ann.deletes(f"{LIKE}/a")], comes


def a_like_is_replaced_while_its_reply_comes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    before = [ann.creates(f"{LIKE}/a", subject=ref(answer))]
    replaced = [ann.deletes(f"{LIKE}/a"), ann.creates(f"{LIKE}/b", subject=ref(answer))]
    return before, replaced, [ben.creates(f"{POST}/reply", text="reply", reply=reply(root))]


def a_like_is_replaced_while_its_reply_changes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    before = [
        ann.creates(f"{LIKE}/a", subject=ref(answer)),
        ben.creates(f"{POST}/reply", text="reply", reply=reply(root)),
    ]
    replaced = [ann.deletes(f"{LIKE}/a"), ann.creates(f"{LIKE}/b", subject=ref(answer))]
    return before, replaced, [ben.creates(f"{POST}/reply", text="changed", reply=reply(root))]


def a_duplicate_takes_over_while_its_reply_comes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    before = [ann.creates(f"{LIKE}/{key}", subject=ref(answer)) for key in "ba"]
    comes = [ben.creates(f"{POST}/reply", text="reply", reply=reply(root))]
    return before, [ann.deletes(f"{LIKE}/a")], comes


def a_reply_moves_to_the_thread_of_who_likes_it() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    other = Author(3).uri(f"{POST}/other")
    before = [ben.creates(f"{POST}/reply", text="reply", reply=reply(other))]
    moves = [ben.creates(f"{POST}/reply", text="moved", reply=reply(root))]
    return before, [ann.creates(f"{LIKE}/a", subject=ref(answer))], moves


def a_reply_goes_while_it_is_liked() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, answer = _thread()
    before = [ben.creates(f"{POST}/reply", text="reply", reply=reply(root))]
    likes = [ann.creates(f"{LIKE}/a", subject=ref(answer))]
    return before, likes, [ben.deletes(f"{POST}/reply")]


def the_last_like_goes_while_its_post_comes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, _ = _thread()
    before = [ben.creates(f"{LIKE}/a", subject=ref(root))]
    return before, [ben.deletes(f"{LIKE}/a")], [ann.creates(f"{POST}/root", text="root")]


def the_last_reply_goes_while_its_parent_goes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben, root, _ = _thread()
    before = [
        ann.creates(f"{POST}/root", text="root"),
        ben.creates(f"{POST}/reply", text="reply", reply=reply(root)),
    ]
    return before, [ben.deletes(f"{POST}/reply")], [ann.deletes(f"{POST}/root")]


def _generator(author: Author) -> bytes:
    return author.creates(f"{GENERATOR}/g", did="did:web:feed.test", displayName="feed")


def a_generator_comes_while_it_is_liked() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben = Author(1), Author(2)
    before = [ann.creates(f"{POST}/p", text="")]
    likes = [ben.creates(f"{LIKE}/a", subject=ref(ann.uri(f"{GENERATOR}/g")))]
    return before, likes, [_generator(ann)]


def the_last_like_goes_while_its_generator_comes() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben = Author(1), Author(2)
    before = [ben.creates(f"{LIKE}/a", subject=ref(ann.uri(f"{GENERATOR}/g")))]
    return before, [ben.deletes(f"{LIKE}/a")], [_generator(ann)]


def a_generator_goes_while_it_is_liked() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben = Author(1), Author(2)
    before = [_generator(ann)]
    likes = [ben.creates(f"{LIKE}/a", subject=ref(ann.uri(f"{GENERATOR}/g")))]
    return before, likes, [ann.deletes(f"{GENERATOR}/g")]


def a_generator_changes_while_it_is_unliked() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben = Author(1), Author(2)
    before = [_generator(ann), ben.creates(f"{LIKE}/a", subject=ref(ann.uri(f"{GENERATOR}/g")))]
    return before, [ben.deletes(f"{LIKE}/a")], [_generator(ann)]


def two_follow_each_other() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben = Author(1), Author(2)
    follow = "app.bsky.graph.follow/a"
    before = [ann.creates(f"{POST}/p", text="")]
    return before, [ann.creates(follow, subject=ben.did)], [ben.creates(follow, subject=ann.did)]


def two_unfollow_each_other() -> tuple[list[bytes], list[bytes], list[bytes]]:
    ann, ben = Author(1), Author(2)
    follow = "app.bsky.graph.follow/a"
    before = [ann.creates(follow, subject=ben.did), ben.creates(follow, subject=ann.did)]
    return before, [ann.deletes(follow)], [ben.deletes(follow)]


SCENES: tuple[Scene, ...] = (
    a_reply_and_the_like_of_it,
    a_like_goes_while_its_reply_comes,
    a_like_is_replaced_while_its_reply_comes,
    a_like_is_replaced_while_its_reply_changes,
    a_duplicate_takes_over_while_its_reply_comes,
    a_reply_moves_to_the_thread_of_who_likes_it,
    a_reply_goes_while_it_is_liked,
    the_last_like_goes_while_its_post_comes,
    the_last_reply_goes_while_its_parent_goes,
    a_generator_comes_while_it_is_liked,
    the_last_like_goes_while_its_generator_comes,
    a_generator_goes_while_it_is_liked,
    a_generator_changes_while_it_is_unliked,
    two_follow_each_other,
    two_unfollow_each_other,
)


@pytest.mark.parametrize("at", ["before_write", "before_commit"])
@pytest.mark.parametrize("order", [1, -1])
def test_overlapping_transactions_give_what_one_after_the_other_gives(
    index: str, at: str, order: int
) -> None:
    for scene in SCENES:
        empty(index)
        before, *pair = scene()
        try:
            overlap(index, before, pair[::order], at)
        except AssertionError as error:
            error.add_note(f"the scene was {scene.__name__}")
            raise


def test_a_deadlock_with_another_program_is_retried_and_nothing_is_lost(index: str) -> None:
    ann, ben, root, answer = _thread()
    frames = [
        ann.creates(f"{POST}/root", text="root"),
        ben.creates(f"{POST}/reply", text="reply", reply=reply(root)),
    ]
    epoch = begin(index)
    Applying(index, epoch, "shard-1", frames).done()
    cat = Author(3)
    writes = [cat.put(f"{LIKE}/{at}", subject=ref(uri)) for at, uri in enumerate((root, answer))]
    likes = [cat.frame(*writes)]
    last, first = sorted((root, answer), reverse=True)
    lock = "UPDATE post_aggregations SET updated_at = now() WHERE post_uri = %s"
    with session(index, "stranger") as stranger:
        # It is the writer who finds the deadlock, and who gives way.
        stranger.execute("SET deadlock_timeout = '60s'")
        with stranger.transaction():
            stranger.execute(lock, [last])
            writing = Applying(
                index, epoch, "shard-1", likes, settings={"deadlock_timeout": "500ms"}
            )
            writing.wait_for_it()
            stranger.execute(lock, [first])
    assert writing.done().retries >= 1
    check(index, epoch, [*frames, *likes])
    assert deadlocks(index) == 1


def deadlocks(index: str) -> int:
    with psycopg.connect(index) as connection:
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_writers_at_the_same_viral_posts_and_accounts_never_deadlock(index: str) -> None:
    chance = random.Random(1)
    people = [Author(number) for number in range(24)]
    stream = [Sent(person.did, person.creates(f"{POST}/viral", text="")) for person in people]
    keys = range(10)
    for _ in range(60):
        for person in people:
            writes = {}
            for _ in range(6):
                key, other = chance.choice(keys), chance.choice(people)
                viral = other.uri(f"{POST}/viral")
                fields: dict[str, Any]
                collection, fields = chance.choice(
                    (
                        (LIKE, {"subject": ref(viral)}),
                        ("app.bsky.feed.repost", {"subject": ref(viral)}),
                        ("app.bsky.graph.follow", {"subject": other.did}),
                        (POST, {"text": "", "reply": reply(viral)}),
                    )
                )
                path = f"{collection}/{key}"
                if person.holds(path) and chance.random() < 0.5:
                    writes[path] = Write("delete", path, None)
                else:
                    writes[path] = person.put(path, **fields)
            stream.append(Sent(person.did, person.frame(*writes.values())))
    crew = Crew(index, chance, largest=60)
    crew.apply(stream, 4)
    settle(index)
    expected = reference_of([sent.frame for sent in stream]).tables()
    assert tables.differences(expected, tables.read_tables(index)) == []
    assert verify(index) == []
    assert crew.outcome.retries == deadlocks(index) == 0
