"""Frames: what is decoded, and for each rule the reason with which a breach is refused."""

from typing import Any

import pytest

from actors.atproto import cbor, cid, datetimes, frames, tid
from actors.atproto.errors import Reason, WireError
from actors.atproto.events import Account, Action, Commit, ErrorFrame, Identity, Info, Kind, Sync
from tests import wire
from tests.wire import DID, REV, TIME

ACCOUNT = {"seq": 1, "did": DID, "time": TIME, "active": False, "status": "deactivated"}
SYNC = {"seq": 1, "did": DID, "rev": REV, "blocks": b"", "time": TIME}
RECORD_CID = cid.compute(b"a record")
RAW_CID = cid.RAW + bytes(32)


def without(body: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != field}


def with_op(**fields: Any) -> dict[str, Any]:
    made = {"action": "create", "path": "app.bsky.feed.post/a", "cid": RECORD_CID, **fields}
    return wire.post_body(ops=[made])


def reason_of(frame: bytes) -> Reason:
    with pytest.raises(WireError) as caught:
        frames.decode(frame)
    assert len(str(caught.value)) < 600
    return caught.value.reason


def test_a_commit_is_decoded_into_checked_values() -> None:
    event = frames.decode(wire.frame(wire.post_body()))
    assert isinstance(event, Commit)
    assert (event.seq, event.did, event.rev, event.since) == (7, DID, REV, wire.SINCE)
    assert event.prev_data == cid.compute(b"before")
    assert event.time.isoformat() == "2026-11-23T21:13:33.756000"
    assert event.ops[0].action is Action.CREATE
    assert event.ops[0].path == "app.bsky.feed.post/a"
    assert not event.too_big


def test_a_first_commit_names_nothing_before_it() -> None:
    event = frames.decode(wire.frame(without(wire.post_body(since=None, ops=[]), "prevData")))
    assert isinstance(event, Commit)
    assert (event.since, event.prev_data, event.ops) == (None, None, ())


def test_the_other_events_are_decoded() -> None:
    moment = datetimes.parse(TIME)
    assert moment is not None
    assert frames.decode(wire.frame(ACCOUNT, "#account")) == Account(
        1, DID, moment, False, "deactivated"
    )
    assert frames.decode(wire.frame(SYNC, "#sync")) == Sync(1, DID, REV, b"", moment)
    identity = {"seq": 2, "did": DID, "time": TIME}
    assert frames.decode(wire.frame(identity, "#identity")) == Identity(2, DID, moment, None)
    assert frames.decode(wire.frame({**identity, "handle": "a.test"}, "#identity")) == Identity(
        2, DID, moment, "a.test"
    )
    info = wire.frame({"name": "OutdatedCursor"}, "#info")
    assert frames.decode(info) == Info("OutdatedCursor", None)
    assert frames.peek(info).name == "OutdatedCursor"


def test_an_error_frame_has_a_name_and_a_message() -> None:
    frame = cbor.encode({"op": -1}) + cbor.encode({"error": "FutureCursor", "message": "no"})
    assert frames.decode(frame) == ErrorFrame("FutureCursor", "no")
    seen = frames.peek(frame)
    assert (seen.kind, seen.name, seen.message) == (Kind.ERROR, "FutureCursor", "no")


@pytest.mark.parametrize(
    "header", [{"op": 1, "t": "#new"}, {"op": 2, "t": "#commit"}, {"op": 7}, {"op": 1, "t": ""}]
)
def test_unknown_events_and_operations_are_stepped_over(header: dict[str, Any]) -> None:
    frame = cbor.encode(header) + cbor.encode({"seq": 9, "anything": 1.5})
    assert frames.decode(frame) is None
    assert frames.peek(frame).kind is Kind.OTHER


def test_unknown_fields_are_ignored() -> None:
    frame = cbor.encode({"op": 1, "t": "#account", "x": 1}) + cbor.encode({**ACCOUNT, "new": [{}]})
    assert isinstance(frames.decode(frame), Account)


def test_unknown_account_statuses_are_legal() -> None:
    event = frames.decode(wire.frame({**ACCOUNT, "status": "hibernating"}, "#account"))
    assert isinstance(event, Account)
    assert event.status == "hibernating"


def test_a_rev_may_be_five_minutes_ahead_and_no_more() -> None:
    frame = wire.frame(wire.post_body())
    rev = tid.to_microseconds(REV)
    assert frames.decode(frame, rev - 300_000_000) is not None
    with pytest.raises(WireError) as caught:
        frames.decode(frame, rev - 300_000_001)
    assert caught.value.reason is Reason.REV_IN_FUTURE


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", Reason.BAD_CBOR),
        (b"\x00", Reason.BAD_CBOR),
        (cbor.encode({"op": 1, "t": "#commit"}), Reason.BAD_CBOR),
        (cbor.encode([]) + cbor.encode({}), Reason.BAD_FRAME),
        (cbor.encode({"op": 1, "t": "#info"}) + cbor.encode([]), Reason.BAD_FRAME),
        (cbor.encode({"t": "#info"}) + cbor.encode({}), Reason.BAD_FRAME),
        (cbor.encode({"op": True, "t": "#info"}) + cbor.encode({}), Reason.BAD_FRAME),
        (cbor.encode({"op": 1, "t": 5}) + cbor.encode({}), Reason.BAD_FRAME),
        (wire.frame(ACCOUNT, "#account") + b"\x00", Reason.BAD_CBOR),
        (b"\x81" * 10_000 + b"\x80", Reason.TOO_DEEP),
        (b"\xa1\x62op\x01" + b"\x81" * 100_000, Reason.TOO_MANY_ITEMS),
        (b"\x00" * (frames.MAX_FRAME + 1), Reason.FRAME_TOO_LARGE),
        (b"\xa1\x61t\x62\xff\xfe" + b"\xa0", Reason.INVALID_UTF8),
        (wire.frame(without(ACCOUNT, "seq"), "#account"), Reason.BAD_SEQ),
        (wire.frame({**ACCOUNT, "seq": -1}, "#account"), Reason.BAD_SEQ),
        (wire.frame({**ACCOUNT, "seq": 1 << 53}, "#account"), Reason.BAD_SEQ),
        (wire.frame({**ACCOUNT, "seq": True}, "#account"), Reason.BAD_SEQ),
        (wire.frame(without(ACCOUNT, "did"), "#account"), Reason.MISSING_FIELD),
        (wire.frame({**ACCOUNT, "did": 5}, "#account"), Reason.WRONG_TYPE),
        (wire.frame({**ACCOUNT, "did": "plc"}, "#account"), Reason.BAD_DID),
        (wire.frame({**ACCOUNT, "did": "did:m:" + "v" * 3000}, "#account"), Reason.BAD_DID),
        (wire.frame(without(ACCOUNT, "active"), "#account"), Reason.MISSING_FIELD),
        (wire.frame({**ACCOUNT, "active": 1}, "#account"), Reason.WRONG_TYPE),
        (wire.frame({**ACCOUNT, "status": "s" * 300}, "#account"), Reason.WRONG_TYPE),
        (wire.frame({**ACCOUNT, "time": "yesterday"}, "#account"), Reason.BAD_TIME),
        (wire.frame(without(ACCOUNT, "time"), "#account"), Reason.MISSING_FIELD),
        (wire.frame({**SYNC, "blocks": b"x" * 10_001}, "#sync"), Reason.BLOCKS_TOO_LARGE),
        (wire.frame(without(SYNC, "blocks"), "#sync"), Reason.MISSING_FIELD),
        (wire.frame({**SYNC, "rev": "x"}, "#sync"), Reason.BAD_REV),
        (wire.frame({}, "#info"), Reason.MISSING_FIELD),
        (wire.frame(without(wire.post_body(), "repo")), Reason.MISSING_FIELD),
        (wire.frame(wire.post_body(rev=5)), Reason.WRONG_TYPE),
        (wire.frame(wire.post_body(since="x")), Reason.BAD_REV),
        (wire.frame(wire.post_body(prevData=RAW_CID)), Reason.BAD_CID),
        (wire.frame(wire.post_body(commit=RAW_CID)), Reason.BAD_CID),
        (wire.frame(wire.post_body(commit="bafy")), Reason.BAD_CID),
        (wire.frame(without(wire.post_body(), "commit")), Reason.MISSING_FIELD),
        (wire.frame(without(wire.post_body(), "blocks")), Reason.MISSING_FIELD),
        (wire.frame(wire.post_body(blocks=b"x" * 2_000_001)), Reason.BLOCKS_TOO_LARGE),
        (wire.frame(without(wire.post_body(), "ops")), Reason.MISSING_FIELD),
        (wire.frame(wire.post_body(ops={})), Reason.WRONG_TYPE),
        (wire.frame(wire.post_body(ops=[{}] * 201)), Reason.TOO_MANY_OPS),
        (wire.frame(wire.post_body(ops=[7])), Reason.BAD_OP),
        (wire.frame(with_op(path=None)), Reason.BAD_PATH),
        (wire.frame(with_op(path="app.bsky.feed.post")), Reason.BAD_PATH),
        (wire.frame(with_op(path="app.bsky.feed.post/a/b")), Reason.BAD_PATH),
        (wire.frame(with_op(path="posts/a")), Reason.BAD_PATH),
        (wire.frame(with_op(path="x" * 100_000)), Reason.BAD_PATH),
        (wire.frame(with_op(action="upsert")), Reason.BAD_OP),
        (wire.frame(with_op(action=[])), Reason.BAD_OP),
        (wire.frame(with_op(cid=None)), Reason.BAD_OP),
        (wire.frame(with_op(cid=RAW_CID)), Reason.BAD_OP),
        (wire.frame(with_op(action="delete")), Reason.BAD_OP),
        (wire.frame(with_op(prev=RECORD_CID)), Reason.BAD_OP),
        (wire.frame(with_op(action="update", prev=b"x")), Reason.BAD_OP),
    ],
)
def test_each_breach_has_its_reason(frame: bytes, reason: Reason) -> None:
    assert reason_of(frame) is reason


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xa0",
        b"\xa0\xa0",
        b"\xbf\xff\xa0",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa2atg#commitbop\x01\xa1cseq\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa2atg#commitbop\x01\xa1cseq\x01",
        b"\xa2at\x80bop\x01\xa0",
        b"\xa2at\x80bop\x80\xa0",
        b"\xa2atg#commitbop\x01" + b"\x81" * 20_000,
        wire.frame(ACCOUNT, "#account")[:-1],
        wire.frame(ACCOUNT, "#account") + b"\x00",
        b"\x00" * (frames.MAX_FRAME + 1),
    ],
)
def test_a_frame_that_cannot_be_peeked_is_a_fault_of_the_upstream(frame: bytes) -> None:
    with pytest.raises(WireError):
        frames.peek(frame)


def test_what_is_wrong_inside_an_event_does_not_spoil_its_peek() -> None:
    bad_text = wire.frame(wire.post_body()).replace(b"fcreate", b"fcre\xffte")
    for frame in (
        bad_text,
        wire.frame(wire.post_body(ops=None)),
        wire.frame(wire.post_body(blocks=b"x" * 3_000_000)),
        wire.frame(wire.post_body(extra="y" * 3_000_000)),
        wire.frame(wire.post_body(repo="not a did")),
    ):
        seen = frames.peek(frame)
        assert (seen.kind, seen.seq) == (Kind.COMMIT, 7)
        if b"not a did" not in frame:
            assert seen.did == DID
    assert reason_of(bad_text) is Reason.INVALID_UTF8


def test_a_few_bytes_cannot_become_a_great_many_objects() -> None:
    frame = wire.frame(wire.post_body(extra=[])).replace(
        b"eextra\x80", b"eextra\x9a" + (4_000_000).to_bytes(4, "big") + b"\x80" * 4_000_000
    )
    with pytest.raises(WireError) as caught:
        frames.decode(frame)
    assert caught.value.reason is Reason.TOO_MANY_ITEMS
    seen = frames.peek(frame)
    assert (seen.seq, seen.did) == (7, wire.DID)
