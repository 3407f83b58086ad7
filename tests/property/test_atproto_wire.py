"""Rules of the wire format that hold for any value, and for any bytes whatever."""

import contextlib
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.atproto import car, cbor, cid, commit, datamodel, datetimes, frames, mst, tid, uri
from actors.atproto.errors import WireError
from actors.atproto.events import Commit, ErrorFrame, Info, Sync
from tests import wire
from tests.corpus import files

BLOCKS = st.dictionaries(st.integers(), st.binary(max_size=400), max_size=8).map(
    lambda made: {cid.compute(block): block for block in made.values()}
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53) + 1, (1 << 53) - 1)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
KEYS = st.integers(0, 300).map(lambda number: f"app.bsky.feed.like/{number}".encode())


def attempt(call: Callable[[Any], Any], value: Any) -> Any:
    """What a call makes of a value, or None where it refuses it with a typed reason."""
    with contextlib.suppress(WireError):
        return call(value)
    return None


def through_everything(frame: bytes) -> None:
    """Take a frame as far as it goes; only WireError may come out."""
    seen = attempt(frames.peek, frame)
    event = attempt(frames.decode, frame)
    if event is None or isinstance(event, Info | ErrorFrame):
        return
    assert seen is not None, "a shard would decode what ingest cannot peek"
    assert (seen.seq, seen.did) == (event.seq, event.did)
    if isinstance(event, Sync):
        attempt(commit.open_sync, event)
    if isinstance(event, Commit):
        opened = attempt(commit.open_commit, event)
        for op in opened.ops if opened is not None else ():
            if op.record is not None:
                attempt(datamodel.to_data, op.record)


def samples() -> list[bytes]:
    """A frame of each kind, the smallest of each so that every byte can have its turn."""
    kinds: dict[str, bytes] = {}
    for frame in files.demo_frames():
        kind = frames.peek(frame).kind
        if kind not in kinds or len(frame) < len(kinds[kind]):
            kinds[kind] = frame
    return [*kinds.values(), wire.frame(wire.post_body())]


@pytest.mark.parametrize("number", range(5))
def test_one_wrong_byte_never_raises_anything_but_a_typed_reason(number: int) -> None:
    frame = samples()[number]
    chance = random.Random(number)
    for at in range(len(frame)):
        for byte in {0x00, 0x80, 0xFF, frame[at] ^ 1, frame[at] ^ 0x20, chance.randrange(256)}:
            through_everything(frame[:at] + bytes((byte,)) + frame[at + 1 :])


@pytest.mark.parametrize("number", range(5))
def test_a_cut_frame_never_raises_anything_but_a_typed_reason(number: int) -> None:
    frame = samples()[number]
    for at in range(len(frame)):
        through_everything(frame[:at])
        through_everything(frame[at:])


@pytest.mark.parametrize("head", [b"\x5b", b"\x7b", b"\x9b", b"\xbb"])
@pytest.mark.parametrize("length", [1 << 16, 1 << 31, 1 << 62, (1 << 64) - 1])
def test_huge_lengths_cost_nothing(head: bytes, length: int) -> None:
    huge = head + length.to_bytes(8, "big")
    through_everything(huge)
    through_everything(b"\xa2atg#commitbop\x01" + huge)
    through_everything(b"\xa2atg#commitbop\x01\xa1eother" + huge)
    through_everything(b"\xa2atg#commitbop\x01\xa1eother" + huge + b"x" * 100_000)
    with pytest.raises(WireError):
        cbor.skip(huge, 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_typed_reason(data: bytes) -> None:
    through_everything(data)
    through_everything(b"\xa2atg#commitbop\x01" + data)
    readers: list[Callable[[Any], Any]] = [car.read, mst.decode_node, datamodel.to_data]
    for read in readers:
        attempt(read, data)


@given(BLOCKS)
def test_a_car_comes_back_whole(blocks: dict[bytes, bytes]) -> None:
    root = cid.compute(b"root")
    assert car.read(car.write(root, blocks)).blocks == blocks


@given(BLOCKS.filter(bool), st.randoms(use_true_random=False))
def test_a_changed_byte_of_a_car_is_noticed(
    blocks: dict[bytes, bytes], chance: random.Random
) -> None:
    data = bytearray(car.write(cid.compute(b"root"), blocks))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    try:
        content = car.read(bytes(data))
    except WireError:
        return
    # Only the root stands outside of every hash; it is compared with the message by open_commit.
    assert content.blocks == blocks
    assert content.root != cid.compute(b"root")


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), JSON, max_size=5)
)
def test_json_goes_through_a_record_unchanged(fields: dict[str, object]) -> None:
    clean = {key.replace("\0", ""): value for key, value in fields.items()}
    record = {**clean, "$type": "com.example.thing"}
    assert datamodel.to_data(cbor.encode(record)) == (record, False)


@given(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1))
def test_tids_sort_as_their_moments(first: int, second: int) -> None:
    one, two = tid.from_integer(first), tid.from_integer(second)
    assert tid.to_integer(one) == first
    assert (one < two) is (first < second)


@given(st.datetimes())
def test_a_time_comes_back_from_its_text(moment: datetime) -> None:
    assert datetimes.parse(moment.isoformat() + "Z") == moment
    assert datetimes.parse(datetimes.to_text(moment)) == moment.replace(
        microsecond=moment.microsecond // 1000 * 1000
    )


@given(st.text(max_size=60))
def test_no_text_upsets_the_parsers(text: str) -> None:
    datetimes.parse(text)
    uri.split_path(text)
    parsers: list[Callable[[Any], Any]] = [uri.parse, cid.from_text, tid.to_integer]
    for parse in parsers:
        attempt(parse, text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=120))
def test_a_tree_depends_on_its_keys_alone_and_every_change_can_be_undone(
    changes: list[tuple[bool, bytes]],
) -> None:
    tree, known = mst.Tree(), dict[bytes, bytes]()
    before, _ = tree.seal()
    for number, (remove, key) in enumerate(changes):
        former = known.get(key)
        if remove and former is None:
            with pytest.raises(KeyError):
                tree.delete(key)
            continue
        value = cid.compute(b"%d" % number)
        if remove:
            assert tree.delete(key) == known.pop(key)
        else:
            assert tree.put(key, value) == former
            known[key] = value
        root, blocks = tree.seal()
        # With nothing but what a commit carries, the tree before it can be found again.
        tree.proof(key, blocks)
        undone = mst.Tree.load(root, blocks)
        if former is not None:
            undone.put(key, former)
        else:
            undone.delete(key)
        assert undone.seal()[0] == before
        before = root
    assert before == mst.Tree.build(known.items()).seal()[0]
    assert list(tree.items()) == sorted(known.items())
    assert all(tree.get(key) == value for key, value in known.items())
