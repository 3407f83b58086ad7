"""Records: the data model's rules, and the JSON form of links, bytes and text."""

from typing import Any

import pytest

from actors.atproto import cbor, cid, datamodel
from actors.atproto.errors import Reason, WireError
from tests import wire

LINK = cid.compute(b"a blob")


def data(**fields: Any) -> dict[str, Any]:
    return datamodel.to_data(wire.record(**fields))[0]


def refused(block: bytes) -> Reason:
    with pytest.raises(WireError) as caught:
        datamodel.to_data(block)
    return caught.value.reason


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def raw_record(key: bytes, value: bytes) -> bytes:
    """A record with one more field, as bytes that our own encoder might refuse to write."""
    return b"\xa2" + key + value + b"\x65$type\x61x"


def test_plain_values_come_as_they_are() -> None:
    fields = {"text": "é💩", "n": -5, "yes": True, "no": None, "list": [1, ["a"], {"b": False}]}
    record, sanitised = datamodel.to_data(wire.record(**fields))
    assert record == {**wire.POST, **fields}
    assert not sanitised


def test_links_and_bytes_take_their_json_form() -> None:
    raw = cid.RAW + LINK[4:]
    record = data(one=LINK, many=[raw], some=b"\xfb\xff", none=b"")
    assert record["one"] == {"$link": cid.to_text(LINK)}
    assert record["many"] == [{"$link": cid.to_text(raw)}]
    assert record["some"] == {"$bytes": "+/8"}
    assert record["none"] == {"$bytes": ""}


def test_bytes_that_look_like_a_link_stay_bytes() -> None:
    record, _ = datamodel.to_data(raw_record(b"\x61a", b"\x58\x24" + LINK))
    assert set(record["a"]) == {"$bytes"}


@pytest.mark.parametrize(
    "link",
    [
        b"\x12\x20" + LINK[4:],  # version 0
        b"\x01\x70\x12\x20" + LINK[4:],  # dag-pb
        b"\x01\x71\x00\x05hello",  # identity
    ],
)
def test_links_of_other_kinds_are_refused(link: bytes) -> None:
    size = len(link) + 1
    head = bytes((0x40 | size,)) if size < 24 else bytes((0x58, size))
    assert refused(raw_record(b"\x61a", b"\xd8\x2a" + head + b"\x00" + link)) is Reason.BAD_CID


def test_nul_is_taken_out_of_text_lists_and_keys_and_reported() -> None:
    record, sanitised = datamodel.to_data(
        wire.record(text="a\0b", list=["\0", {"x": "\0y"}], **{"k\0ey": {"in\0ner": 1}})
    )
    assert sanitised
    assert record["text"] == "ab"
    assert record["list"] == ["", {"x": "y"}]
    assert record["key"] == {"inner": 1}


def test_a_cleaned_key_does_not_take_the_place_of_one_that_came_clean() -> None:
    record, _ = datamodel.to_data(wire.record(**{"key": 1, "k\0ey": 2}))
    assert record["key"] == 1


def test_a_zero_byte_that_is_no_nul_changes_nothing() -> None:
    assert datamodel.to_data(wire.record(link=LINK, zero=0))[1] is False


def test_limits_are_the_last_value_let_in() -> None:
    assert data(n=(1 << 53) - 1, m=-(1 << 53) + 1)["n"] == (1 << 53) - 1
    assert data(deep=nested(31))["deep"] == nested(31)
    assert data(**{"k" * 8192: 1})["k" * 8192] == 1
    wide = "x" * (1_000_000 - len(wire.record(text="x" * 100_000)) + 100_000)
    assert data(text=wide)["text"] == wide


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"", Reason.BAD_CBOR),
        (wire.record() + b"\x00", Reason.BAD_CBOR),
        (wire.record()[:-1], Reason.BAD_CBOR),
        (b"\xa2aaaba\x61x\x61y", Reason.BAD_CBOR),
        (b"\xa1\x01\x02", Reason.BAD_CBOR),
        (b"\xbf\x61a\x01\xff", Reason.BAD_CBOR),
        (b"\xa2\x61a\x01\x61a\x02", Reason.BAD_CBOR),
        (raw_record(b"\x61a", b"\x62\xff\xfe"), Reason.INVALID_UTF8),
        (raw_record(b"\x61\xff", b"\x01"), Reason.INVALID_UTF8),
        (raw_record(b"\x61a", b"\x63\xed\xa0\x80"), Reason.INVALID_UTF8),  # a lone surrogate
        (cbor.encode([1]), Reason.NOT_A_MAP),
        (cbor.encode("text"), Reason.NOT_A_MAP),
        (cbor.encode({}), Reason.MISSING_TYPE),
        (wire.record(**{"$type": 5}), Reason.MISSING_TYPE),
        (wire.record(**{"$type": ""}), Reason.MISSING_TYPE),
        (wire.record(x=1.5), Reason.FLOAT),
        (wire.record(x=[1.0]), Reason.FLOAT),
        (wire.record(x=1 << 53), Reason.INTEGER_TOO_LARGE),
        (wire.record(x=[-(1 << 53)]), Reason.INTEGER_TOO_LARGE),
        (wire.record(x=nested(32)), Reason.TOO_DEEP),
        (wire.record(x=nested(900)), Reason.TOO_DEEP),
        (b"\xa1\x61a" + b"\x81" * 10_000 + b"\x80", Reason.TOO_DEEP),
        (wire.record(**{"k" * 8193: 1}), Reason.KEY_TOO_LONG),
        (wire.record(**{"é" * 4097: 1}), Reason.KEY_TOO_LONG),
        (wire.record(text="x" * 1_000_000), Reason.RECORD_TOO_LARGE),
        (wire.record(x=[[]] * 200_000), Reason.TOO_MANY_ITEMS),
    ],
)
def test_each_breach_has_its_reason(block: bytes, reason: Reason) -> None:
    assert refused(block) is reason
