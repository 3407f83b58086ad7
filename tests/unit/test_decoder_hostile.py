"""Frames and records made to cost more than they are worth, or to be taken for something else."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from actors.atproto import car, cbor, cid, commit, datamodel, frames
from actors.atproto.errors import Reason, WireError
from actors.atproto.peek import peek
from actors.decoder import Batch
from actors.recent import LONGEST, Recent
from actors.records import RECORDS
from actors.store.arrays import array
from actors.store.batch import AppliedCommit, Operation
from actors.store.schema import TABLES
from tests import wire

LINK = cid.compute(b"linked")
COLLECTION = "com.example.thing"


def block_of(**fields: Any) -> bytes:
    return cbor.encode({"$type": COLLECTION, **fields})


def decoded(body: dict[str, Any]) -> Batch:
    batch = Batch()
    batch.add(wire.frame(body))
    return batch


def operations(batch: Batch) -> Sequence[Operation]:
    (change,) = batch.changes
    assert isinstance(change, AppliedCommit)
    return change.operations


def naming(block: bytes, count: int, collection: str = COLLECTION) -> dict[str, Any]:
    """The body of a commit that creates so many records, all of them with the same block."""
    return wire.commit_body(
        [wire.op("create", f"{collection}/{number}", block) for number in range(count)], [block]
    )


def test_a_byte_string_that_spells_a_link_is_none_and_does_not_make_one_of_another() -> None:
    spelt = b"\xd8\x2a\x58\x25\x00" + LINK
    data, _ = datamodel.to_data(block_of(a=spelt, b=b"\xd8\x2a\x42\x00x", c=b"x"))
    assert [set(data[key]) for key in "abc"] == [{"$bytes"}] * 3
    data, _ = datamodel.to_data(block_of(a=spelt, b=LINK))
    assert data["a"].keys() == {"$bytes"}
    assert data["b"] == {"$link": cid.to_text(LINK)}


def test_a_link_is_one_whatever_the_width_of_its_heads() -> None:
    plain = block_of(a=LINK)
    for head in (b"\xd9\x00\x2a\x58\x25", b"\xd8\x2a\x59\x00\x25", b"\xda\0\0\0\x2a\x5a\0\0\0\x25"):
        wide = plain.replace(b"\xd8\x2a\x58\x25", head)
        assert datamodel.to_data(wide) == datamodel.to_data(plain)


def test_a_link_to_what_the_protocol_has_no_cid_for_is_refused() -> None:
    for name in (LINK[:4] + bytes(33), b"\x12\x20" + bytes(32), b"\x01\x55\x12\x20" + bytes(33)):
        link = b"\xd8\x2a\x58" + bytes((len(name) + 1,)) + b"\0" + name
        block = block_of(a=LINK).replace(b"\xd8\x2a\x58\x25\0" + LINK, link)
        with pytest.raises(WireError) as caught:
            datamodel.to_data(block)
        assert caught.value.reason in (Reason.BAD_CID, Reason.BAD_CBOR)


def test_tens_of_thousands_of_byte_strings_are_told_from_links_in_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []
    links = cbor.links

    def counted(data: bytes) -> set[bytes]:
        passes.append(len(data))
        return links(data)

    monkeypatch.setattr(cbor, "links", counted)
    # Zeros are what a search for a short byte string dwells on.
    block = block_of(list=[bytes((number % 250,)) for number in range(49_000)], pad=bytes(850_000))
    data, _ = datamodel.to_data(block)
    assert len(data["list"]) == 49_000
    assert passes == [len(block)]


def test_a_block_that_many_records_share_counts_each_time() -> None:
    block = block_of(text="z" * 900_000)
    batch = decoded(naming(block, 200))
    made = operations(batch)
    assert [op.row is not None for op in made] == [True] * 2 + [False] * 198
    (change,) = batch.changes
    assert isinstance(change, AppliedCommit)
    assert [drop.reason for drop in change.drops] == ["records_too_large"] * 198
    assert batch.size == 2 * len(block) <= commit.MAX_RECORDS


def test_a_record_behind_one_too_many_is_kept_where_it_fits() -> None:
    large, small = block_of(text="z" * 900_000), block_of(text="z")
    paths = [(f"{COLLECTION}/{number}", large) for number in range(3)]
    paths.append((f"{COLLECTION}/small", small))
    ops = [wire.op("create", path, block) for path, block in paths]
    made = operations(decoded(wire.commit_body(ops, [large, small])))
    assert [op.row is not None for op in made] == [True, True, False, True]


def test_records_with_blocks_of_their_own_are_never_too_many() -> None:
    blocks = [block_of(text="z" * 9_000, number=number) for number in range(200)]
    ops = [wire.op("create", f"{COLLECTION}/{n}", block) for n, block in enumerate(blocks)]
    body = wire.commit_body(ops, blocks)
    assert len(body["blocks"]) < frames.MAX_BLOCKS
    assert all(op.row is not None for op in operations(decoded(body)))


def test_a_long_list_costs_its_event_and_not_the_connection() -> None:
    names = [cid.compute(b"%d" % number) for number in range(30_000)]
    frame = wire.frame(wire.post_body(blobs=names))
    assert (peek(frame).seq, peek(frame).did) == (7, wire.DID)
    batch = Batch()
    batch.add(frame)
    assert [drop.reason for drop in batch.drops] == ["too_many_items"]


def test_many_long_lists_are_looked_at_no_further_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    walk = cbor.walk

    def counted(data: bytes, offset: int, max_items: int = cbor.MAX_ITEMS) -> tuple[int, int]:
        after, items = walk(data, offset, max_items)
        seen.append(items)
        return after, items

    monkeypatch.setattr(cbor, "walk", counted)
    lists = {f"zz{number:03}": [1] * 49_000 for number in range(100)}
    assert peek(wire.frame(wire.post_body(**lists))).seq == 7
    assert sum(seen) <= cbor.MAX_ITEMS


def test_what_a_frame_says_of_its_owner_does_not_fill_the_log() -> None:
    batch = decoded(wire.post_body(repo="x" * 4_000_000))
    (drop,) = batch.drops
    assert drop.reason == "bad_did"
    assert len(drop.subject) + len(drop.detail) < 4_000


def test_dids_of_absurd_length_are_not_remembered() -> None:
    recent = Recent(10)
    short, long = "did:web:" + "a" * (LONGEST - 8), "did:web:" + "a" * 2_000
    recent.update((short, long))
    assert recent.missing((short, long)) == {long}


def test_an_operation_that_names_the_commit_itself_brings_no_record() -> None:
    body = wire.post_body()
    (op,) = body["ops"]
    root = car.read(body["blocks"]).root
    batch = decoded({**body, "ops": [{**op, "cid": root}]})
    assert [drop.reason for change in batch.changes for drop in drops_of(change)] == [
        "missing_type"
    ]


def drops_of(change: object) -> Sequence[Any]:
    assert isinstance(change, AppliedCommit)
    return change.drops


SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**53, 2**64 - 1, -(2**64), 1.5, "", "\0", b"", b"abc", LINK),
    *("x" * 3000, "\\ud800 \\u0000", "\u202e\ufeff\U0010ffff", "at://", "at://a.b/c.d.e/f"),
    *(wire.DID, f"at://{wire.DID}/app.bsky.feed.post/a", f"at://{wire.DID}/app.bsky.feed.post/a\0"),
    *(f"at://did:x:{'y' * 2000}/a.b.c/d", f"at://{wire.DID}/app.bsky.feed.post/{'r' * 512}"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:60Z", "2023-06-30T23:59:60Z"),
    *("app.bsky.embed.record", "app.bsky.embed.record\0", "app.bsky.embed.recordWithMedia"),
)
GOOD: dict[str, Any] = {
    "subject": {"uri": f"at://{wire.DID}/app.bsky.feed.post/a", "cid": "c"},
    "text": "t",
    "did": wire.DID,
    "displayName": "n",
    "name": "n",
    "purpose": "p",
    "policies": {},
    "handle": "h",
    "src": wire.DID,
    "uri": "at://x",
    "val": "v",
    "post": f"at://{wire.DID}/app.bsky.feed.post/self",
    "list": f"at://{wire.DID}/app.bsky.graph.list/a",
}
FIELDS = (
    *GOOD,
    *("allow", "avatar", "banner", "cid", "createdAt", "cts", "description", "embed", "exp"),
    *("embeddingRules", "facets", "feeds", "hiddenReplies", "langs", "neg", "parent", "ref"),
    *("pinnedPost", "record", "reply", "root", "tags", "via", "$link", "$type"),
)


def anything(chance: random.Random, depth: int = 0) -> Any:
    pick = chance.random()
    if depth > 3 or pick < 0.5:
        return chance.choice(SCALARS)
    if pick < 0.65:
        return [anything(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {key: anything(chance, depth + 1) for key in chance.sample(FIELDS, chance.randint(0, 4))}


@pytest.mark.parametrize("collection", [*RECORDS, COLLECTION])
def test_no_record_of_any_type_does_more_than_be_dropped(collection: str) -> None:
    chance = random.Random(collection)
    rows = dropped = 0
    for _ in range(300):
        fields = {key: anything(chance) for key in chance.sample(FIELDS, chance.randint(0, 3))}
        subject = chance.choice(
            (GOOD["subject"], wire.DID, f"at://{wire.DID}/app.bsky.feed.post/a")
        )
        block = cbor.encode({**GOOD, "subject": subject, **fields, "$type": collection})
        batch = decoded(wire.commit_body([wire.op("create", f"{collection}/self", block)], [block]))
        (change,) = batch.changes
        dropped += len(drops_of(change))
        for operation in operations(batch):
            if operation.row is None:
                continue
            rows += 1
            operation.type.effects(operation.key, operation.row.basis)
            table = TABLES[operation.type.table]
            for name, value in zip(operation.type.columns, operation.row.values, strict=True):
                array(table.type_of(name), [value])
                assert not (isinstance(value, str) and "\0" in value)
    assert rows
    assert dropped
    assert rows + dropped >= 300
