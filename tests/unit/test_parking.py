"""Events that wait: bounded, each once, in order, and nothing of who forbids it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.atproto import car, cbor, cid, frames, skeleton
from actors.decoder import Batch
from actors.store import parking, resync
from actors.store.forget import forget
from actors.store.parking import RESYNC, Standing
from tests.author import Author
from tests.unproven import Signer, Stage, no_wait
from tests.writing import begin_run, make_index, session, writer

POST = "app.bsky.feed.post"
LIMIT = 20_000


class Crash(BaseException):
    """What stands for the end of a process."""


class Crashes:
    """Crashes at one point, once."""

    def __init__(self) -> None:
        self.armed = ""

    def __call__(self, name: str) -> None:
        if name == self.armed:
            self.armed = ""
            raise Crash(name)


@pytest.fixture
def crashes() -> Crashes:
    return Crashes()


@pytest.fixture
def stage(database: str, crashes: Crashes) -> Iterator[Stage]:
    conninfo = make_index(database)
    epoch = begin_run(conninfo)
    with (
        writer(conninfo, epoch, kept_drops=100, parked_bytes=LIMIT, crash_point=crashes) as writing,
        session(conninfo, "observer") as connection,
    ):
        found = Stage(writing, connection, epoch)
        found.crash_point = crashes  # type: ignore[method-assign]
        yield found


def parked(stage: Stage) -> Signer:
    """An author of a commit that is indexed, whose events wait from now on."""
    author = Signer(1)
    stage.resolved(author, author.multikey)
    stage.live(author.creates(f"{POST}/first", text="first"))
    resync.begin(stage.writing, author.did, no_wait)
    return author


def ends(stage: Stage, author: Author) -> None:
    """The fetch failed, so that all that waited is applied."""
    resync.end(stage.writing, author.did, None, None, no_wait)


def buffer(stage: Stage) -> bytes:
    return b"".join(body for (body,) in stage.run("SELECT body FROM engine_resync_buffer"))


def size_told(stage: Stage) -> int:
    ((size,),) = stage.run("SELECT bytes FROM engine_parked")
    assert isinstance(size, int)
    return size


def test_what_was_drained_makes_room_for_what_comes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "DRAINED_AT_ONCE", 4)
    author = parked(stage)
    for number in range(5):
        stage.live(author.creates(f"{POST}/a{number}", text=f"{number} " + 1500 * "x"))
    assert size_told(stage) == len(buffer(stage)) > LIMIT / 2
    ends(stage, author)
    for number in range(8):
        stage.live(author.creates(f"{POST}/b{number}", text=f"{number} " + 1500 * "x"))
        drained = stage.drain_once(author.did)
        assert drained is not None
        assert size_told(stage) == len(buffer(stage))
    stage.drain()
    assert stage.outcome.given_up == 0
    assert len(stage.posts()) == 14
    assert stage.parked() == []


def test_more_than_may_wait_is_given_up_counted_and_fetched_anew(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "DRAINED_AT_ONCE", 1)
    author = parked(stage)
    stage.live(author.creates(f"{POST}/a", text="a"), author.creates(f"{POST}/b", text="b"))
    ends(stage, author)
    stage.drain_once(author.did)
    large = [author.creates(f"{POST}/{number}", text=9000 * "x") for number in range(3)]
    assert stage.live(*large).given_up == 1
    assert (buffer(stage), size_told(stage)) == (b"", 0)
    stage.drain()
    assert stage.posts() == ["a", "first"]
    assert stage.run("SELECT out_of_step FROM engine_repos") == [(True,)]
    assert stage.run(
        "SELECT sum(amount)::integer FROM engine_tallies WHERE name = 'parked_given_up'"
    ) == [(1,)]


def test_too_much_of_an_account_of_which_nothing_is_known_is_fetched_as_well(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.meet(author)
    large = [author.creates(f"{POST}/{number}", text=9000 * "x") for number in range(3)]
    stage.live(*large)
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.run("SELECT did, out_of_step FROM engine_repos") == [(author.did, True)]
    last = author.creates(f"{POST}/last", text="last")
    assert stage.live(last).commits == 1
    assert stage.run("SELECT out_of_step FROM engine_repos") == [(True,)]


def test_what_is_told_again_after_a_crash_waits_once(stage: Stage) -> None:
    author = parked(stage)
    batch = [author.creates(f"{POST}/{name}", text=name) for name in "ab"]
    stage.live(*batch)
    stage.live(*batch, author.creates(f"{POST}/c", text="c"))
    assert stage.run("SELECT count(*) FROM engine_resync_buffer") == [(3,)]
    assert size_told(stage) == len(buffer(stage))
    ends(stage, author)
    stage.drain()
    assert stage.posts() == ["a", "b", "c", "first"]
    assert stage.outcome.replayed == 0


def test_what_cannot_be_decoded_any_more_is_a_drop(stage: Stage) -> None:
    author = parked(stage)
    stage.live(author.creates(f"{POST}/a", text="a"), author.creates(f"{POST}/b", text="b"))
    stage.run("UPDATE engine_resync_buffer SET body = substr(body, 1, 40) WHERE id % 2 = 1")
    ends(stage, author)
    stage.drain()
    assert [drop.reason for drop in stage.outcome.drops] == ["bad_cbor"]
    assert stage.run("SELECT subject, reason FROM engine_drops") == [(author.did, "bad_cbor")]
    assert stage.run("SELECT name FROM engine_tallies WHERE name LIKE 'drop.%%'") == [
        ("drop.bad_cbor",)
    ]
    assert stage.parked() == []


def set_opted_out(stage: Stage, author: Author, forbidden: bool) -> None:
    stage.run(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, %s)"
        " ON CONFLICT (user_did) DO UPDATE"
        " SET data_collection_forbidden = excluded.data_collection_forbidden",
        *(author.did, forbidden),
    )


@pytest.mark.parametrize("again", [False, True], ids=["for good", "and in again"])
def test_of_who_has_opted_out_only_deletions_wait(stage: Stage, again: bool) -> None:
    author = parked(stage)
    set_opted_out(stage, author, True)
    outcome = stage.live(
        author.frame(
            author.put(f"{POST}/a", text="secret"), author.put(f"{POST}/b", text="secret")
        ),
        author.deletes(f"{POST}/first"),
    )
    assert [drop.reason for drop in outcome.drops] == ["opted_out"] * 2
    assert b"secret" not in buffer(stage)
    assert b"createdAt" not in buffer(stage)
    if again:
        set_opted_out(stage, author, False)
    ends(stage, author)
    stage.drain()
    assert stage.posts() == []
    assert [drop.reason for drop in stage.outcome.drops] == ["opted_out"] * 2
    # What was left out is wanted once that is allowed.
    assert stage.run("SELECT out_of_step FROM engine_repos") == [(True,)]


def test_what_waits_of_who_is_to_be_forgotten_goes_at_once(stage: Stage) -> None:
    author = parked(stage)
    stage.live(author.creates(f"{POST}/a", text="secret"))
    forget(stage.connection, author.did, lambda body, _did: body)
    assert buffer(stage) == b""
    assert size_told(stage) == 0


def test_a_commit_without_its_records_is_verified_as_before() -> None:
    author = Signer(1)
    for name in "abc":
        author.creates(f"{POST}/{name}", text=name)
    frame = author.frame(
        author.put(f"{POST}/d", text="secret"), author.put("com.example.thing/e", value="secret")
    )
    batch = Batch(signatures=True, trees=True)
    batch.changes += stripped(frame).changes
    (change,) = batch.changes
    assert [drop.reason for drop in getattr(change, "drops", ())] == ["record_missing"] * 2


def stripped(frame: bytes) -> Batch:
    bare = skeleton.of_commit(frame)
    assert b"secret" not in bare
    batch = Batch(signatures=True, trees=True)
    batch.add(bare)
    assert batch.drops == []
    return batch


def test_nothing_but_the_tree_is_left_of_a_commit() -> None:
    author = Signer(1)
    frame = author.creates(f"{POST}/a", text="a")
    _header, body = cbor.decode_pair(frame)
    content = car.read(body["blocks"])
    other = cbor.encode({"text": "secret", "$type": POST})
    blocks = {**content.blocks, cid.compute(other): other}
    sent = {**body, "blocks": car.write(content.root, blocks), "note": "secret"}
    stripped(frames.encode("#commit", sent))


def test_who_is_to_be_drained_is_found_by_an_index(stage: Stage) -> None:
    stage.run(
        "INSERT INTO engine_parked (did, reason) SELECT 'did:plc:' || n, 'no_key'"
        " FROM generate_series(1, 20000) n"
    )
    stage.run("UPDATE engine_parked SET draining = true WHERE did = 'did:plc:7'")
    stage.run("ANALYZE engine_parked")
    assert stage.ready() == ["did:plc:7"]
    plan = "\n".join(
        line
        for (line,) in stage.run(
            "EXPLAIN SELECT did FROM engine_parked WHERE draining ORDER BY created_at LIMIT 10000"
        )
    )
    assert "Seq Scan" not in plan, plan


def test_a_run_that_is_to_catch_up_waits_for_keys_and_not_for_silent_sites(stage: Stage) -> None:
    author = parked(stage)
    assert parking.left(stage.connection) == 0, "fetches go on for ever"
    ends(stage, author)
    assert parking.left(stage.connection) == 1
    stage.drain()
    stage.run(
        "INSERT INTO engine_identities (did, plc, failures) VALUES"
        " ('did:web:silent.test', false, 1), ('did:plc:silent', true, 1)"
    )
    stage.run(
        "INSERT INTO engine_parked (did, reason) VALUES ('did:web:silent.test', 'no_key'),"
        " ('did:plc:silent', 'no_key'), ('did:plc:unknown', 'wrong_key')"
    )
    assert parking.left(stage.connection) == 2


def test_those_who_wait_can_be_counted(stage: Stage) -> None:
    author = parked(stage)
    stage.live(author.creates(f"{POST}/a", text="a"))
    assert parking.standing(stage.connection) == {RESYNC: Standing(1, len(buffer(stage)))}


POINTS = (
    *("before_write", "before_commit", "after_commit", "parking", "draining"),
    *("parking before_commit", "parking after_commit"),
)


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_of_parking_and_draining_keeps_all_and_its_order(
    stage: Stage, crashes: Crashes, point: str
) -> None:
    author = Signer(1)
    stage.meet(author)
    frames_of = [author.creates(f"{POST}/{n // 3}", text=str(n)) for n in range(6)]
    steps: list[Callable[[], Any]] = [
        lambda: stage.live(*frames_of[:2]),
        lambda: stage.live(*frames_of[2:4]),
        lambda: stage.resolved(author, author.multikey),
        lambda: stage.live(*frames_of[4:5]),
        stage.drain,
        lambda: stage.live(*frames_of[5:]),
        stage.drain,
    ]
    fired = 0
    for at in range(len(steps)):
        stage.run("TRUNCATE engine_parked, engine_resync_buffer, engine_repos, posts")
        stage.run("UPDATE engine_identities SET signing_key = NULL, stale = false")
        stage.verification = type(stage.verification)()
        for index, step in enumerate(steps):
            crashes.armed = point.rpartition(" ")[2] if index == at else ""
            try:
                step()
            except Crash:
                fired += 1
                # The shard that comes after knows nothing; what was not acked comes again.
                stage.verification = type(stage.verification)()
                step()
            crashes.armed = ""
        assert stage.posts() == ["2", "5"]
        assert stage.parked() == []
        assert stage.run("SELECT out_of_step FROM engine_repos") == [(False,)]
        assert stage.refused() == []
    assert fired > 0, f"nothing crashed at {point}"
