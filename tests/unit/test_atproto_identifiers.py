"""CIDs, TIDs, DIDs, uris and times: what is let in, what is refused, and what they turn into."""

from datetime import datetime

import pytest

from actors.atproto import cid, datetimes, did, tid, uri
from actors.atproto.errors import Reason, WireError

TEXT = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
PLC = "did:plc:6rccq36mzkt43saroyej2tyx"


def test_a_cid_has_one_text_form_and_comes_back_from_it() -> None:
    raw = cid.from_text(TEXT)
    assert len(raw) == cid.SIZE
    assert cid.to_text(raw) == TEXT
    assert cid.is_record_cid(raw)
    assert cid.from_text(cid.to_text(cid.RAW + b"x" * 32)) == cid.RAW + b"x" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:-1],
        TEXT + "a",
        TEXT.upper(),
        TEXT[:-1] + "b",  # another spelling of the same bytes: its spare bits are not zero
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",  # dag-pb
        TEXT[:-1] + "\u0131",
    ],
)
def test_other_spellings_of_a_cid_are_refused(text: str) -> None:
    with pytest.raises(WireError) as caught:
        cid.from_text(text)
    assert caught.value.reason is Reason.BAD_CID


def test_a_tid_names_a_moment() -> None:
    moment = datetimes.from_microseconds(tid.to_microseconds("3n2z2cjzezs27"))
    assert datetimes.to_text(moment) == "2026-11-23T21:13:33.611Z"
    assert tid.from_microseconds(0, 0) == "2222222222222"
    assert tid.from_microseconds(tid.MAX_MICROSECONDS, 1023) == "bzzzzzzzzzzzz"
    assert tid.to_integer("bzzzzzzzzzzzz") == (1 << 63) - 1


def test_tids_follow_each_other_even_when_the_clock_does_not() -> None:
    first = tid.after(None, 1_000_000, 5)
    second = tid.after(first, 1_000_000, 5)
    third = tid.after(second, 999_000, 5)
    assert first < second < third
    assert tid.to_microseconds(third) == 1_000_002


@pytest.mark.parametrize(
    "text",
    ["", "3n2z2cjzezs2", "3n2z2cjzezs277", "zn2z2cjzezs27", "3n2z2cjzezs21", "3N2Z2CJZEZS27"],
)
def test_what_is_no_tid_is_refused(text: str) -> None:
    assert not tid.is_valid(text)
    with pytest.raises(WireError):
        tid.to_microseconds(text)


@pytest.mark.parametrize(("value", "clock"), [(1 << 53, 0), (-1, 0), (0, 1024), (0, -1)])
def test_a_tid_holds_53_bits_of_time_and_10_of_a_clock(value: int, clock: int) -> None:
    with pytest.raises(ValueError, match="not"):
        tid.from_microseconds(value, clock)


@pytest.mark.parametrize(
    ("text", "general", "supported"),
    [
        (PLC, True, True),
        ("did:web:example.com", True, True),
        ("did:web:localhost%3A12591", True, True),
        ("did:web:example.com%3A8080", True, False),
        ("did:web:example.com:path", True, False),
        ("did:plc:short", True, False),
        ("did:method:val:two", True, False),
        ("did:method:", False, False),
        ("did:method:val:", False, False),
        ("did:METHOD:val", False, False),
        ("did:m:v%", False, False),
        ("did:m:" + "v" * 2042, True, False),
        ("did:m:" + "v" * 2043, False, False),
        (PLC + "\n", False, False),
        ("DID:plc:6rccq36mzkt43saroyej2tyx", False, False),
        ("", False, False),
    ],
)
def test_did_syntax(text: str, general: bool, supported: bool) -> None:
    assert did.is_valid(text) is general
    assert did.is_supported(text) is supported


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a.test", True),
        ("XX.LCS.MIT.EDU", True),
        ("a.co", True),
        ("jay.bsky.social", True),
        ("john.0", False),
        ("org", False),
        ("a..b", False),
        ("-a.test", False),
        ("a" * 64 + ".test", False),
        ("a." * 127 + "test", False),
        ("a.test\n", False),
    ],
)
def test_handle_syntax(text: str, good: bool) -> None:
    assert did.is_handle(text) is good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("app.bsky.feed.post", True),
        ("com.example.devEnv.camelCase", True),
        ("net.users.bob.ping", True),
        ("a-0.b-1.c", True),
        ("cn.8.lex.stuff", True),
        ("one.two", False),
        ("com.example.3", False),
        ("com.example.f-o", False),
        ("com.exa💩ple.thing", False),
        ("com..thing", False),
        ("o." * 158 + "x", False),
        ("app.bsky.feed.post\n", False),
    ],
)
def test_nsid_syntax(text: str, good: bool) -> None:
    assert uri.is_nsid(text) is good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("self", True),
        ("3jui7kd54zh2y", True),
        ("example.com", True),
        ("~1.2-3_", True),
        ("pre:fix", True),
        ("_", True),
        ("a" * 512, True),
        ("a" * 513, False),
        ("", False),
        (".", False),
        ("..", False),
        ("a/b", False),
        ("#extra", False),
        ("any space", False),
        ("self\n", False),
    ],
)
def test_record_key_syntax(text: str, good: bool) -> None:
    assert uri.is_rkey(text) is good


@pytest.mark.parametrize(
    "text",
    [
        f"at://{PLC}/app.bsky.feed.post/3jui7kd54zh2y",
        f"at://{PLC}/com.example.devEnv.camelCase/a:b",
        "at://alice.test/app.bsky.feed.generator/feed-0",
        "at://did:web:localhost%3A12591/app.bsky.actor.profile/self",
    ],
)
def test_a_uri_is_taken_apart_and_put_together(text: str) -> None:
    parts = uri.parse(text)
    assert str(parts) == text == uri.make(*parts)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "at://",
        f"at://{PLC}",
        f"at://{PLC}/app.bsky.feed.post",
        f"at://{PLC}/app.bsky.feed.post/",
        f"at://{PLC}/app.bsky.feed.post/.",
        f"at://{PLC}/app.bsky.feed.post/..",
        f"at://{PLC}/app.bsky.feed.post/a/b",
        f"at://{PLC}/app.bsky.feed.post/a#b",
        f"at://{PLC}/app.bsky.feed.post/a?b",
        f"at://{PLC}/app.bsky.feed.post/a\n",
        f"at://{PLC}/posts/a",
        "at://nobody/app.bsky.feed.post/a",
        f"https://{PLC}/app.bsky.feed.post/a",
        f"at://did:m:{'v' * 9000}/app.bsky.feed.post/a",
    ],
)
def test_what_is_no_record_uri_is_refused(text: object) -> None:
    with pytest.raises(WireError) as caught:
        uri.parse(text)
    assert caught.value.reason is Reason.BAD_URI
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-31T12:34:56.789Z", "2024-01-31T12:34:56.789000"),
        ("2024-01-31T12:34:56Z", "2024-01-31T12:34:56"),
        ("2024-01-31T12:34:56.1Z", "2024-01-31T12:34:56.100000"),
        ("2024-01-31T12:34:56.123456789Z", "2024-01-31T12:34:56.123456"),
        ("2024-01-31T12:34:56.789+02:30", "2024-01-31T10:04:56.789000"),
        ("2024-01-31T23:34:56-01:00", "2024-02-01T00:34:56"),
        ("2024-01-31t12:34:56z", "2024-01-31T12:34:56"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999000"),
    ],
)
def test_rfc_3339_times_become_utc(text: str, moment: str) -> None:
    assert datetimes.parse(text) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    "text",
    [
        None,
        1_700_000_000,
        "",
        "2024-01-31",
        "2024-01-31T12:34:56",
        "2024-01-31T12:34:56.789",
        "2024-01-31T12:34:56.+01Z",
        "2024-01-31T12:34:56.1+1Z",
        "2024-01-31T12:34Z",
        "2024-01-31 12:34:56Z",
        "2024-02-30T12:34:56.000Z",
        "2024-01-31T24:00:00.000Z",
        "2024-01-31T12:60:00.000Z",
        "2024-01-31T12:34:61Z",
        "2024-01-31T12:34:56+24:00",
        "2024-01-31T12:34:56+01:60",
        "2024-01-31T12:34:56+0100",
        "0000-01-01T00:00:00.000Z",
        "-0001-01-01T00:00:00.000Z",
        "10000-01-01T00:00:00.000Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:60Z",
        "2024-W05-3T12:34:56Z",
        "2024-01-31T12:34:56.\u0661\u0662\u0663Z",
        "\uff12024-01-31T12:34:56.789Z",
        "2024-01-31T12:34:56." + "1" * 100 + "Z",
    ],
)
def test_what_names_no_moment_is_none(text: object) -> None:
    assert datetimes.parse(text) is None


def test_times_go_to_microseconds_and_back() -> None:
    moment = datetime.fromisoformat("2024-01-31T12:34:56.789123")
    assert datetimes.from_microseconds(datetimes.to_microseconds(moment)) == moment
    assert datetimes.to_text(moment) == "2024-01-31T12:34:56.789Z"
    assert datetimes.from_unix(0.0).isoformat() == "1970-01-01T00:00:00"
