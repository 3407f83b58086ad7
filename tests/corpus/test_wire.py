"""The recorded network through the whole of the wire format."""

import pytest

from actors.atproto import car, cid, commit, datamodel, frames, mst
from actors.atproto.errors import Reason
from actors.atproto.events import Action, Commit, Event, Info, Kind, Sync
from tests.corpus import files

KIND_OF = {
    "Commit": Kind.COMMIT,
    "Sync": Kind.SYNC,
    "Identity": Kind.IDENTITY,
    "Account": Kind.ACCOUNT,
}


def decoded(frame: bytes) -> Event:
    event = frames.decode(frame)
    assert event is not None
    return event


def demo_commits() -> list[Commit]:
    events = map(decoded, files.demo_frames())
    return [event for event in events if isinstance(event, Commit)]


@pytest.mark.parametrize("source", [files.demo_frames, files.replay_frames])
def test_every_recorded_frame_is_decoded_and_the_peek_says_the_same(source: object) -> None:
    assert callable(source)
    for frame in source():
        seen, event = frames.peek(frame), decoded(frame)
        assert not isinstance(event, Info)
        assert seen.kind is KIND_OF[type(event).__name__]
        assert (seen.seq, seen.did) == (event.seq, event.did)  # type: ignore[union-attr]  # no errors
        assert seen.time is not None


def test_the_counts_are_those_of_the_manifest() -> None:
    manifest = files.document("manifest")
    kinds: dict[str, int] = {}
    for frame in files.demo_frames():
        kind = f"#{frames.peek(frame).kind}"
        kinds[kind] = kinds.get(kind, 0) + 1
    assert kinds == manifest["byType"]
    collections: dict[str, dict[str, int]] = {}
    for message in demo_commits():
        for op in message.ops:
            actions = collections.setdefault(op.collection, {})
            actions[op.action] = actions.get(op.action, 0) + 1
    assert collections == manifest["byCollection"]


def test_labels_are_another_stream_whose_frames_are_stepped_over() -> None:
    for frame in files.label_frames():
        assert frames.peek(frame).kind is Kind.OTHER
        assert frames.decode(frame) is None


def test_every_recorded_commit_opens_and_its_records_follow_the_data_model() -> None:
    records = 0
    for message in demo_commits():
        opened = commit.open_commit(message)
        assert opened.signed.did == message.did
        for op in opened.ops:
            assert op.problem is None
            assert (op.record is None) is (op.action is Action.DELETE)
            if op.record is not None and op.cid is not None:
                assert cid.compute(op.record) == op.cid
                record, _ = datamodel.to_data(op.record)
                assert record["$type"]
                records += 1
    assert records > 3900


def test_records_with_a_nul_are_cleaned_and_only_those() -> None:
    cleaned = [
        f"at://{message.did}/{op.collection}/{op.rkey}"
        for message in demo_commits()
        for op in commit.open_commit(message).ops
        if op.record is not None and datamodel.to_data(op.record)[1]
    ]
    assert cleaned == files.document("special")["special"]["bad:post NUL char"]


def test_every_recorded_sync_holds_its_commit() -> None:
    syncs = [event for event in map(decoded, files.demo_frames()) if isinstance(event, Sync)]
    later = [event.seq for event in syncs if commit.open_sync(event).rev < event.rev]
    assert len(syncs) == 67
    assert later == [3939]  # a reactivation
    assert all(commit.open_sync(event).rev <= event.rev for event in syncs)


def test_a_repository_built_from_its_keys_alone_has_the_same_root_and_nodes() -> None:
    for name, content in files.repositories().items():
        archive = car.read(content)
        signed = commit.read_signed(archive)
        tree = mst.Tree.load(signed.data, archive.blocks)
        keys = sorted(tree.items(), key=lambda item: item[1])
        root, blocks = mst.Tree.build(keys).seal()
        assert root == signed.data, name
        assert all(archive.blocks[node] == block for node, block in blocks.items())


def test_every_recorded_commit_undone_on_its_own_blocks_gives_the_tree_before() -> None:
    undone = 0
    for message in demo_commits():
        opened = commit.open_commit(message)
        if message.prev_data is None or not message.ops:
            continue
        tree = mst.Tree.load(opened.signed.data, opened.blocks)
        order = sorted(opened.ops, key=lambda op: op.action is not Action.DELETE)
        for op in order:
            key = f"{op.collection}/{op.rkey}".encode()
            if op.action is Action.CREATE:
                assert tree.delete(key) == op.cid
            elif op.prev is not None:
                assert tree.put(key, op.prev) == (op.cid if op.action is Action.UPDATE else None)
        assert tree.seal()[0] == message.prev_data
        undone += 1
    assert undone == 3666


def test_what_a_server_folds_into_one_write_is_folded_here() -> None:
    unchained = [
        message
        for message in demo_commits()
        for op in message.ops
        if op.action is not Action.CREATE and op.prev is None
    ]
    assert len(unchained) == 2
    for message in unchained:
        opened = commit.open_commit(message)
        assert len(opened.ops) < len(message.ops)
        assert all(op.problem is not Reason.RECORD_MISSING for op in opened.ops)


def test_a_frame_walked_by_hand_says_the_same_as_one_decoded() -> None:
    for frame in files.demo_frames():
        # libipld refuses map keys out of order, so this frame is not decoded but walked.
        unsorted = frame.replace(b"\xa2atg#commitbop\x01", b"\xa2bop\x01atg#commit")
        assert frames.peek(unsorted) == frames.peek(frame)
