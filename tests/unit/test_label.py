"""Labels as they come: what is read, what is refused and why, and whose signature holds."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.atproto import cbor, frames, label, multikey
from actors.atproto.errors import Reason, WireError
from actors.atproto.events import ErrorFrame, Info
from actors.atproto.label import Label, LabelRefused, Labels, Refusal
from actors.atproto.multikey import Curve, PublicKey
from actors.atproto.peek import MAX_FRAME
from tests.servers.labels import LabelKey, error_frame, labels_frame

SRC = "did:plc:6rccq36mzkt43saroyej2tyx"
POST = "at://did:plc:drlgzakhpthmyl7t7brzakyg/app.bsky.feed.post/3mbd354vwo42b"
CTS = "2026-01-01T00:00:00.000Z"
MICROS = 1_767_225_600_000_000
NOW = MICROS + 60_000_000
KEY = LabelKey()
PUBLIC = multikey.parse(KEY.multikey)


def made(**fields: Any) -> dict[str, Any]:
    """A signed label with these fields changed; None takes one away."""
    whole = {"ver": 1, "src": SRC, "uri": POST, "val": "spam", "cts": CTS, **fields}
    return KEY.sign({name: value for name, value in whole.items() if value is not None})


def read(**fields: Any) -> Label:
    return label.read(made(**fields), SRC, NOW)


def test_a_label_is_read_with_its_times_and_its_signature_holds() -> None:
    cid = "bafyreid7hzescfizm3pnc4t35sv34e235pv7i46irj5cxwhfhfe47zwiae"
    found = read(cid=cid, exp="2026-01-02T01:00:00+01:00")
    assert (found.src, found.uri, found.cid, found.val, found.neg) == (
        SRC,
        POST,
        cid,
        "spam",
        False,
    )
    assert (found.created, found.expires) == (MICROS, MICROS + 86_400_000_000)
    assert label.is_signed(found, PUBLIC)


def test_a_type_and_unknown_fields_are_not_signed() -> None:
    value = made()
    value |= {"$type": "com.atproto.label.defs#label", "later": 7}
    assert label.is_signed(label.read(value, SRC, NOW), PUBLIC)


def test_neg_is_signed_as_it_was_sent() -> None:
    # Both are well-formed, and each has the signature of what was sent.
    assert label.is_signed(read(neg=False), PUBLIC)
    assert label.is_signed(read(neg=True), PUBLIC)
    value = made(neg=False)
    del value["neg"]
    assert not label.is_signed(label.read(value, SRC, NOW), PUBLIC)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("uri", POST[:-1] + "c"),
        ("val", "porn"),
        ("cts", "2026-01-01T00:00:00.001Z"),
        ("neg", True),
        ("exp", CTS),
        ("cid", "bafyreid7hzescfizm3pnc4t35sv34e235pv7i46irj5cxwhfhfe47zwiae"),
        ("sig", bytes(64)),
    ],
)
def test_a_forged_field_breaks_the_signature(field: str, other: object) -> None:
    forged = label.read({**made(), field: other}, SRC, NOW)
    assert not label.is_signed(forged, PUBLIC)


def test_every_flipped_bit_of_a_signature_breaks_it() -> None:
    good = read()
    for index in range(64):
        sig = bytearray(good.sig)
        sig[index] ^= 1 << (index % 8)
        assert not label.is_signed(good._replace(sig=bytes(sig)), PUBLIC)


def test_the_other_s_and_another_key_do_not_hold() -> None:
    good = read()
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(good.sig[32:], "big")
    assert not label.is_signed(good._replace(sig=good.sig[:32] + s.to_bytes(32, "big")), PUBLIC)
    assert not label.is_signed(good, multikey.parse(LabelKey("somebody").multikey))
    assert not label.is_signed(good, PublicKey(Curve.K256, b"\x02" + b"\xff" * 32))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ver": None}, Refusal.UNKNOWN_VERSION),
        ({"ver": 2}, Refusal.UNKNOWN_VERSION),
        ({"ver": True}, Refusal.UNKNOWN_VERSION),
        ({"src": None}, Refusal.NOT_A_LABEL),
        ({"src": "did:plc:drlgzakhpthmyl7t7brzakyg"}, Refusal.WRONG_SOURCE),
        ({"uri": None}, Refusal.NOT_A_LABEL),
        ({"uri": 7}, Refusal.NOT_A_LABEL),
        ({"uri": ""}, Refusal.BAD_SUBJECT),
        ({"uri": "at://nobody"}, Refusal.BAD_SUBJECT),
        ({"uri": "did:plc:"}, Refusal.BAD_SUBJECT),
        ({"uri": POST + "\0"}, Refusal.BAD_SUBJECT),
        ({"uri": "https://example.com/\0"}, Refusal.BAD_SUBJECT),
        ({"uri": "did:web:" + "a" * 1_992 + "b"}, Refusal.SUBJECT_TOO_LONG),
        ({"cid": "x"}, Refusal.BAD_CID),
        ({"cid": 7}, Refusal.NOT_A_LABEL),
        ({"val": None}, Refusal.NOT_A_LABEL),
        ({"val": ""}, Refusal.BAD_VALUE),
        ({"val": "a\0"}, Refusal.BAD_VALUE),
        ({"val": "a" * 129}, Refusal.BAD_VALUE),
        ({"val": "ä" * 65}, Refusal.BAD_VALUE),
        ({"neg": 1}, Refusal.NOT_A_LABEL),
        ({"cts": None}, Refusal.NOT_A_LABEL),
        ({"cts": "yesterday"}, Refusal.BAD_TIME),
        ({"cts": "2026-01-01T00:06:00.001Z"}, Refusal.IN_FUTURE),
        ({"cts": "9999-01-01T00:00:00Z"}, Refusal.IN_FUTURE),
        ({"exp": "soon"}, Refusal.BAD_TIME),
        ({"exp": 7}, Refusal.NOT_A_LABEL),
    ],
)
def test_a_label_that_breaks_a_rule_is_refused_with_its_reason(
    fields: dict[str, Any], reason: Refusal
) -> None:
    with pytest.raises(LabelRefused) as refused:
        read(**fields)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("sig", "reason"),
    [
        (None, Refusal.UNSIGNED),
        (b"", Refusal.BAD_SIGNATURE),
        (bytes(63), Refusal.BAD_SIGNATURE),
        ("a" * 64, Refusal.BAD_SIGNATURE),
    ],
)
def test_a_label_without_a_signature_of_the_right_form_is_refused(
    sig: object, reason: Refusal
) -> None:
    with pytest.raises(LabelRefused) as refused:
        label.read({**made(), "sig": sig}, SRC, NOW)
    assert refused.value.reason is reason


def test_what_is_just_within_the_limits_is_taken() -> None:
    assert read(val="a" * 128).val == "a" * 128
    longest = "at://did:web:example.com/app.bsky.feed.post/"
    assert read(uri="https://example.com/" + "a" * 1_980).uri.endswith("a")
    assert read(uri=longest + "a" * 512).uri.endswith("a")
    assert read(cts="2026-01-01T00:06:00.000Z").created == NOW + label.MAX_AHEAD


@pytest.mark.parametrize("subject", [SRC, "did:web:example.com", "at://did:web:example.com", POST])
def test_accounts_and_records_can_be_labelled(subject: str) -> None:
    assert read(uri=subject).uri == subject


def test_the_uri_of_the_row_tells_apart_exactly_what_the_key_does() -> None:
    cid = "bafyreid7hzescfizm3pnc4t35sv34e235pv7i46irj5cxwhfhfe47zwiae"
    one = read()
    assert one.row_uri.startswith(f"at://{SRC}/com.atproto.label.label/")
    assert one.row_uri == read(neg=True, cts="2025-01-01T00:00:00Z", exp=CTS).row_uri
    others = {read(val="porn").row_uri, read(uri=SRC).row_uri, read(cid=cid).row_uri}
    assert len(others | {one.row_uri}) == 4
    assert one._replace(cid="spam", val="x").row_uri != one._replace(cid="spamx", val="").row_uri


def test_frames_are_told_apart() -> None:
    assert label.decode(labels_frame(7, made())) == Labels(7, [made()])
    assert label.decode(error_frame("FutureCursor", "no")) == ErrorFrame("FutureCursor", "no")
    assert label.decode(frames.encode("#info", {"name": "OutdatedCursor"})) == Info(
        "OutdatedCursor", None
    )
    assert label.decode(frames.encode("#news", {"seq": "?"})) is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", Reason.BAD_CBOR),
        (b"\xa0", Reason.BAD_CBOR),
        (labels_frame(7)[:-1], Reason.BAD_CBOR),
        (frames.encode("#labels", {"seq": 7}), Reason.WRONG_TYPE),
        (frames.encode("#labels", {"seq": 7, "labels": {}}), Reason.WRONG_TYPE),
        (frames.encode("#labels", {"seq": -1, "labels": []}), Reason.BAD_SEQ),
        (frames.encode("#labels", {"seq": 2**53, "labels": []}), Reason.BAD_SEQ),
        (frames.encode("#labels", {"labels": []}), Reason.BAD_SEQ),
        (cbor.encode([]) + cbor.encode({}), Reason.BAD_FRAME),
        (bytes(MAX_FRAME + 1), Reason.FRAME_TOO_LARGE),
    ],
)
def test_a_frame_that_cannot_be_read_is_an_error_of_the_wire(frame: bytes, reason: Reason) -> None:
    with pytest.raises(WireError) as error:
        label.decode(frame)
    assert error.value.reason is reason


def test_a_frame_of_tiny_labels_without_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(WireError) as error:
        label.decode(frames.encode("#labels", {"seq": 7, "labels": [0] * 100_000}))
    assert error.value.reason is Reason.TOO_MANY_ITEMS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from((*label._SIGNED, "sig")), _JSON))
def test_any_value_is_a_label_or_refused(fields: dict[str, Any]) -> None:
    with contextlib.suppress(LabelRefused):
        label.read({**made(), **fields}, SRC, NOW)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_an_error_of_the_wire(data: bytes) -> None:
    for frame in (data, cbor.encode({"op": 1, "t": "#labels"}) + data):
        with contextlib.suppress(WireError):
            label.decode(frame)
