"""Trees: golden values of the specification, broken nodes, and missing blocks."""

from typing import Any

import pytest

from actors.atproto import cbor, cid, mst
from actors.atproto.errors import Reason, WireError

VALUE = cid.compute(b"value")


def entry(key: bytes, shared: int = 0, value: Any = VALUE, tree: Any = None) -> dict[str, Any]:
    return {"p": shared, "k": key, "v": value, "t": tree}


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        (b"2653ae71", 0),
        (b"blue", 1),
        (b"app.bsky.feed.post/454397e440ec", 4),
        (b"app.bsky.feed.post/9adeb165882c", 8),
    ],
)
def test_the_layer_of_a_key_is_that_of_the_specification(key: bytes, layer: int) -> None:
    assert mst.layer_of(key) == layer


def test_an_empty_tree_is_one_node_without_entries() -> None:
    root, blocks = mst.Tree().seal()
    assert cid.to_text(root) == "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"
    assert blocks == {root: cbor.encode({"e": [], "l": None})}
    assert list(mst.Tree.load(root, blocks).items()) == []


def test_only_changed_nodes_are_sealed_again() -> None:
    tree = mst.Tree.build((f"app.bsky.feed.like/{n}".encode(), VALUE) for n in range(2000))
    _, everything = tree.seal()
    assert tree.seal()[1] == {}
    tree.put(b"app.bsky.feed.like/new", VALUE)
    assert 0 < len(tree.seal()[1]) < 12 < len(everything)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        {"l": None},
        {"e": {}, "l": None},
        {"e": [], "l": "x"},
        {"e": [], "l": cid.RAW + bytes(32)},
        {"e": [7], "l": None},
        {"e": [entry(b"a", shared=1)], "l": None},
        {"e": [entry(b"a", shared=-1)], "l": None},
        {"e": [entry(b"")], "l": None},
        {"e": [entry(b"k" * 1025)], "l": None},
        {"e": [entry(b"a", value=None)], "l": None},
        {"e": [entry(b"a", tree=b"x")], "l": None},
        {"e": [entry(b"b"), entry(b"a")], "l": None},
        {"e": [entry(b"a"), entry(b"a")], "l": None},
        {"e": [entry(b"2653ae71"), entry(b"blue")], "l": None},
    ],
)
def test_a_broken_node_is_refused(fields: Any) -> None:
    with pytest.raises(WireError) as caught:
        mst.decode_node(cbor.encode(fields))
    assert caught.value.reason is Reason.BAD_MST


def test_a_missing_subtree_is_told_only_when_it_is_needed() -> None:
    tree = mst.Tree.build((f"app.bsky.feed.like/{n}".encode(), VALUE) for n in range(500))
    root, blocks = tree.seal()
    part = mst.Tree.load(root, {root: blocks[root]})
    assert part.seal() == (root, {})
    with pytest.raises(WireError) as caught:
        list(part.items())
    assert caught.value.reason is Reason.MST_BLOCK_MISSING
    with pytest.raises(WireError) as caught:
        mst.Tree.load(VALUE, {})
    assert caught.value.reason is Reason.MST_BLOCK_MISSING


def test_nodes_in_the_wrong_layer_are_refused_when_they_are_reached() -> None:
    low = cbor.encode({"e": [entry(b"2653ae71")], "l": None})
    for lower in (low, cbor.encode({"e": [], "l": None})):
        high = cbor.encode(
            {"e": [entry(b"app.bsky.feed.post/454397e440ec")], "l": cid.compute(lower)}
        )
        blocks = {cid.compute(block): block for block in (lower, high)}
        tree = mst.Tree.load(cid.compute(high), blocks)
        with pytest.raises(WireError) as caught:
            list(tree.items())
        assert caught.value.reason is Reason.BAD_MST
    below = cbor.encode({"e": [entry(b"2653ae71")], "l": cid.compute(low)})
    tree = mst.Tree.load(cid.compute(below), {cid.compute(b): b for b in (low, below)})
    with pytest.raises(WireError, match="lowest layer"):
        list(tree.items())


def test_a_root_without_keys_above_another_node_is_refused() -> None:
    low = cbor.encode({"e": [entry(b"2653ae71")], "l": None})
    high = cbor.encode({"e": [], "l": cid.compute(low)})
    with pytest.raises(WireError) as caught:
        mst.Tree.load(cid.compute(high), {cid.compute(b): b for b in (low, high)})
    assert caught.value.reason is Reason.BAD_MST


def test_a_proof_is_taken_from_a_sealed_tree() -> None:
    tree = mst.Tree.build([(b"a", VALUE)])
    with pytest.raises(ValueError, match="sealed"):
        tree.proof(b"a", {})
