"""From frames to a batch: what is dropped, what is kept, and what a drop costs."""

from typing import Any

from actors.atproto import car, cid, datetimes, mst, tid
from actors.decoder import Batch
from actors.store.batch import AppliedCommit, SyncState
from tests import wire

FIVE_MINUTES = 5 * 60 * 1_000_000


def decoded(body: dict[str, Any], name: str = "#commit") -> Batch:
    batch = Batch()
    batch.add(wire.frame(body, name))
    return batch


def commit_with(records: list[tuple[str, bytes]], rev: str = wire.REV) -> dict[str, Any]:
    ops = [wire.op("create", path, block) for path, block in records]
    body = wire.commit_body(ops, [block for _, block in records], {"rev": rev})
    return {**body, "rev": rev}


def sync_with(rev: str) -> dict[str, Any]:
    root, _ = mst.Tree.build([]).seal()
    block = wire.signed(root, rev=rev)
    blocks = car.write(cid.compute(block), {cid.compute(block): block})
    return {"seq": 8, "did": wire.DID, "rev": wire.REV, "blocks": blocks, "time": wire.TIME}


def only_commit(batch: Batch) -> AppliedCommit:
    (change,) = batch.changes
    assert isinstance(change, AppliedCommit)
    return change


def rev_at(ahead: int) -> str:
    moment = datetimes.parse(wire.TIME)
    assert moment is not None
    return tid.from_microseconds(datetimes.to_microseconds(moment) + ahead, 7)


def test_a_broken_record_costs_itself_and_its_siblings_are_applied() -> None:
    records = [
        ("app.bsky.feed.post/good", wire.record()),
        ("app.bsky.feed.post/float", wire.record(size=1.5)),
        ("app.bsky.feed.post/textless", wire.record(text=None)),
        ("app.bsky.feed.post/other", wire.record(**{"$type": "app.bsky.feed.like"})),
        ("app.bsky.feed.post/nul", wire.record(text="a\0b")),
    ]
    batch = decoded(commit_with(records))
    commit = only_commit(batch)
    rows = {operation.uri.rpartition("/")[2]: operation.row for operation in commit.operations}
    assert {key for key, row in rows.items() if row is not None} == {"good", "nul"}
    assert {drop.reason for drop in commit.drops} == {"float", "invalid_record", "type_mismatch"}
    nul = rows["nul"]
    assert nul is not None
    assert "ab" in nul.values
    assert batch.sanitised == 1


def test_a_record_that_is_dropped_ends_what_its_key_held_before() -> None:
    batch = decoded(commit_with([("app.bsky.feed.post/a", wire.record(text=5))]))
    (operation,) = only_commit(batch).operations
    assert operation.row is None


def test_a_record_under_a_key_that_its_type_does_not_allow_touches_nothing() -> None:
    profile = wire.record(**{"$type": "app.bsky.actor.profile"})
    commit = only_commit(decoded(commit_with([("app.bsky.actor.profile/other", profile)])))
    assert commit.operations == []
    assert [drop.reason for drop in commit.drops] == ["not_authorized"]


def test_a_rev_more_than_five_minutes_ahead_of_its_event_is_dropped() -> None:
    record = [("app.bsky.feed.post/a", wire.record())]
    assert only_commit(decoded(commit_with(record, rev_at(FIVE_MINUTES))))
    batch = decoded(commit_with(record, rev_at(FIVE_MINUTES + 1)))
    assert batch.changes == []
    assert [drop.reason for drop in batch.drops] == ["rev_in_future"]


def test_a_sync_with_a_rev_ahead_of_its_event_or_no_rev_at_all_is_dropped() -> None:
    (state,) = decoded(sync_with(wire.REV), "#sync").changes
    assert isinstance(state, SyncState)
    assert state[:3] == (wire.DID, wire.REV, mst.Tree.build([]).seal()[0])
    for rev, reason in ((rev_at(FIVE_MINUTES + 1), "rev_in_future"), ("no tid", "bad_tid")):
        batch = decoded(sync_with(rev), "#sync")
        assert batch.changes == []
        assert [drop.reason for drop in batch.drops] == [reason]


def test_a_frame_that_cannot_be_decoded_is_counted_with_its_reason() -> None:
    batch = decoded({**wire.post_body(), "ops": "none"})
    assert batch.changes == []
    assert batch.tallies() == {"events.broken": 1, "drop.wrong_type": 1}


def test_authors_and_subjects_of_what_was_accepted_need_users() -> None:
    other = "did:plc:" + "b" * 24
    follow = wire.record(**{"$type": "app.bsky.graph.follow", "subject": other})
    bad = wire.record(**{"$type": "app.bsky.graph.follow", "subject": "nobody"})
    records = [("app.bsky.graph.follow/a", follow), ("app.bsky.graph.follow/b", bad)]
    batch = decoded(commit_with(records))
    assert (batch.authors, batch.subjects) == ({wire.DID}, {other})
