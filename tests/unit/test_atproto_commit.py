"""CARs and commits: hashes, the signed object, and the folding of operations on one key."""

from typing import Any

import pytest

from actors.atproto import car, cbor, cid, commit, frames
from actors.atproto.errors import Reason, WireError
from actors.atproto.events import Action, Commit, Sync
from tests import wire

PATH = "app.bsky.feed.post/a"
ONE, TWO = wire.record(text="one"), wire.record(text="two")
BLOCKS = {cid.compute(block): block for block in (ONE, TWO)}
ROOT = cid.compute(ONE)


def message(body: dict[str, Any]) -> Commit:
    event = frames.decode(wire.frame(body))
    assert isinstance(event, Commit)
    return event


def refused(body: dict[str, Any]) -> Reason:
    with pytest.raises(WireError) as caught:
        commit.open_commit(message(body))
    return caught.value.reason


def test_a_car_is_read_as_it_was_written() -> None:
    large = cbor.encode({"text": "x" * 3_000_000})
    blocks = {**BLOCKS, cid.compute(large): large, cid.RAW + cid.compute(b"raw")[4:]: b"raw"}
    content = car.read(car.write(ROOT, blocks))
    assert content.root == ROOT
    assert content.blocks == blocks


def test_a_car_may_hold_a_block_twice_and_in_any_order() -> None:
    first = car.write(ROOT, BLOCKS)
    second = car.write(ROOT, dict(reversed(BLOCKS.items())))
    header = car.write(ROOT, {})
    assert car.read(first + second[len(header) :]).blocks == BLOCKS


def test_a_header_may_have_more_roots_and_another_form() -> None:
    header = cbor.encode({"roots": [ROOT, cid.compute(TWO)], "version": 1})
    body = car.write(ROOT, BLOCKS)[len(car.write(ROOT, {})) :]
    assert car.read(bytes((len(header),)) + header + body) == car.Car(ROOT, BLOCKS)


def header(fields: dict[str, Any]) -> bytes:
    block = cbor.encode(fields)
    return bytes((len(block),)) + block


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.BAD_CAR),
        (b"\x00", Reason.BAD_CBOR),
        (b"\xff" * 20, Reason.BAD_CAR),
        (b"\x20", Reason.BAD_CAR),
        (header({"roots": [], "version": 1}), Reason.BAD_CAR),
        (header({"roots": [ROOT], "version": 2}), Reason.BAD_CAR),
        (header({"roots": [b"x"], "version": 1}), Reason.BAD_CAR),
        (header({"version": 1}), Reason.BAD_CAR),
        (car.write(ROOT, BLOCKS)[:-1], Reason.BAD_CAR),
        (car.write(ROOT, BLOCKS) + b"\x01\x00", Reason.BAD_CAR),
        (car.write(ROOT, BLOCKS) + b"\x80", Reason.BAD_CAR),
        (car.write(ROOT, BLOCKS) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", Reason.BAD_CAR),
        (car.write(ROOT, {ROOT: TWO}), Reason.HASH_MISMATCH),
        (car.write(ROOT, {b"\x01\x70\x12\x20" + ROOT[4:]: ONE}), Reason.BAD_CID),
        (car.write(ROOT, {b"\x12\x20" + ROOT[4:]: b"four" + ONE}), Reason.BAD_CID),
    ],
)
def test_a_broken_car_is_refused_with_a_reason(data: bytes, reason: Reason) -> None:
    with pytest.raises(WireError) as caught:
        car.read(data)
    assert caught.value.reason is reason


def test_a_commit_opens_into_its_object_and_records() -> None:
    opened = commit.open_commit(message(wire.post_body()))
    assert (opened.signed.did, opened.signed.rev) == (wire.DID, wire.REV)
    assert opened.signed.data in opened.blocks
    (op,) = opened.ops
    assert (op.action, op.collection, op.rkey) == (Action.CREATE, "app.bsky.feed.post", "a")
    assert op.record == wire.record()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"did": "did:plc:another"}, Reason.COMMIT_MISMATCH),
        ({"rev": wire.SINCE}, Reason.COMMIT_MISMATCH),
        ({"version": 2}, Reason.BAD_COMMIT),
        ({"version": True}, Reason.BAD_COMMIT),
        ({"data": None}, Reason.BAD_COMMIT),
        ({"data": cid.RAW + bytes(32)}, Reason.BAD_COMMIT),
        ({"prev": "x"}, Reason.BAD_COMMIT),
        ({"sig": None}, Reason.BAD_COMMIT),
        ({"sig": b"\x30" + b"x" * 70}, Reason.BAD_COMMIT),
        ({"rev": 7}, Reason.BAD_COMMIT),
    ],
)
def test_the_signed_object_must_be_whole_and_say_what_the_message_says(
    fields: dict[str, Any], reason: Reason
) -> None:
    body = wire.commit_body([wire.op("create", PATH, ONE)], [ONE], fields)
    assert refused(body) is reason


def test_the_signed_object_must_name_prev_even_if_it_is_null() -> None:
    body = wire.post_body()
    fields = cbor.decode(wire.signed(cid.compute(b"tree")))
    del fields["prev"]
    block = cbor.encode(fields)
    name = cid.compute(block)
    body |= {"commit": name, "blocks": car.write(name, {name: block})}
    assert refused(body) is Reason.BAD_COMMIT


def test_a_commit_needs_its_own_block_as_the_root() -> None:
    name = cid.compute(b"elsewhere")
    assert refused(wire.post_body(blocks=car.write(name, {}))) is Reason.COMMIT_MISMATCH
    empty = {"commit": name, "blocks": car.write(name, {})}
    assert refused(wire.post_body(**empty)) is Reason.COMMIT_MISSING
    for block in (b"\xff", cbor.encode([]), b"\x81" * 5000 + b"\x80"):
        name = cid.compute(block)
        fields = {"commit": name, "blocks": car.write(name, {name: block})}
        assert refused(wire.post_body(**fields)) is Reason.BAD_COMMIT


def test_a_commit_flagged_as_too_big_says_so() -> None:
    assert refused(wire.post_body(tooBig=True, blocks=b"")) is Reason.TOO_BIG


def test_a_sync_gives_the_signed_object() -> None:
    block = wire.signed(cid.compute(b"tree"))
    name = cid.compute(block)
    fields = {"seq": 1, "did": wire.DID, "rev": wire.REV, "time": wire.TIME}
    event = frames.decode(wire.frame({**fields, "blocks": car.write(name, {name: block})}, "#sync"))
    assert isinstance(event, Sync)
    assert commit.open_sync(event).data == cid.compute(b"tree")


def folded(*ops: dict[str, Any], records: tuple[bytes, ...] = (ONE, TWO)) -> commit.RecordOp:
    body = wire.commit_body([], list(records))
    opened = commit.open_commit(message({**body, "ops": list(ops)}))
    (op,) = opened.ops
    return op


def test_several_operations_on_a_key_are_one() -> None:
    create, update = wire.op("create", PATH, ONE), wire.op("update", PATH, TWO)
    delete = wire.op("delete", PATH, None)
    assert folded(create, update, records=(TWO,)).action is Action.CREATE
    assert folded(create, update, records=(TWO,)).record == TWO
    assert folded(create, delete, records=()).action is Action.DELETE
    assert folded(update, delete, records=()).action is Action.DELETE
    replaced = folded(wire.op("delete", PATH, None, ONE), wire.op("create", PATH, TWO))
    assert (replaced.action, replaced.record, replaced.prev) == (
        Action.UPDATE,
        TWO,
        cid.compute(ONE),
    )
    twice = folded(wire.op("update", PATH, ONE, TWO), wire.op("update", PATH, TWO, ONE))
    assert (twice.action, twice.record, twice.prev) == (Action.UPDATE, TWO, cid.compute(TWO))
    again = folded(create, delete, wire.op("create", PATH, TWO))
    assert again.action is Action.UPDATE


def test_operations_keep_the_order_in_which_their_keys_appear() -> None:
    ops = [wire.op("create", f"app.bsky.feed.post/{key}", ONE) for key in "cab"]
    opened = commit.open_commit(message(wire.commit_body(ops, [ONE])))
    assert [op.rkey for op in opened.ops] == ["c", "a", "b"]


@pytest.mark.parametrize(
    "ops",
    [
        [wire.op("create", PATH, ONE), wire.op("create", PATH, TWO)],
        [wire.op("update", PATH, ONE), wire.op("create", PATH, TWO)],
        [wire.op("delete", PATH, None), wire.op("update", PATH, TWO)],
        [wire.op("delete", PATH, None), wire.op("delete", PATH, None)],
        [wire.op("create", PATH, ONE), wire.op("update", PATH, TWO, TWO)],
    ],
)
def test_operations_that_cannot_follow_each_other_spoil_the_commit(ops: list[Any]) -> None:
    body = wire.commit_body([], [ONE, TWO])
    assert refused({**body, "ops": ops}) is Reason.OPS_DO_NOT_CHAIN


def test_a_missing_or_oversized_record_is_the_problem_of_its_operation_alone() -> None:
    large = wire.record(text="x" * 1_000_000)
    ops = [
        wire.op("create", "app.bsky.feed.post/good", ONE),
        wire.op("create", "app.bsky.feed.post/missing", TWO),
        wire.op("create", "app.bsky.feed.post/large", large),
    ]
    opened = commit.open_commit(message(wire.commit_body(ops, [ONE, large])))
    assert [op.problem for op in opened.ops] == [
        None,
        Reason.RECORD_MISSING,
        Reason.RECORD_TOO_LARGE,
    ]
    assert [op.record for op in opened.ops] == [ONE, None, None]
