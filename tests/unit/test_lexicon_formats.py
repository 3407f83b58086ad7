"""The formats of strings, and the kinds of record keys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.atproto.lexicon_formats import FORMATS, record_key

DID = "did:plc:drlgzakhpthmyl7t7brzakyg"
POST = f"at://{DID}/app.bsky.feed.post/3mbd355eai62b"
CID = "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"

VALID = {
    "at-identifier": [DID, "did:web:example.com", "alice.test", "Alice.Example.COM"],
    "at-uri": [
        POST,
        f"at://{DID}",
        f"at://{DID}/com.example.thing",
        "at://alice.test/com.example.thing/self",
        "at://did:web:example.com/com.example.thing/a.b:c~d_e-f",
        f"at://{DID}/com.example.thing/...",
        f"at://{DID}/com.example.thing/{'k' * 512}",
        f"at://{DID}/space/com.example.room/main",
        f"at://{DID}/space/com.example.room/main/{DID}/com.example.thing/one",
    ],
    "cid": [
        CID,
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        "zdj7WWeQ43G6JJvLWQWZpyHuAMq6uYWRjkBXFad11vE2LHhQ7",
        "f01701220c3c4733ec8affd06cf9e9ff50ffc6bcd2ec85a6170004bb709669c31de94391a",
        "mAXESIPff+8=",
    ],
    "datetime": [
        "2026-11-24T10:11:12.123Z",
        "2026-11-24T10:11:12Z",
        "2026-11-24T10:11:12.1Z",
        "2026-11-24T10:11:12.1234567890123456789Z",
        "2026-11-24T10:11:12.123+00:00",
        "2026-11-24T10:11:12-23:59",
        "2026-12-31T23:59:59.999Z",
        "2024-02-29T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999-12:00",
    ],
    "did": [DID, "did:web:example.com", "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pr"],
    "handle": ["alice.test", "alice.bsky.social", "xn--bcher-kva.example", "8.cn", "A.B"],
    "language": [
        "en",
        "ban",
        "pt-BR",
        "zh-Hant",
        "zh-cmn-Hans-CN",
        "es-419",
        "de-CH-1901",
        "sl-rozaj-biske",
        "en-u-co-phonebk-t-en-us",
        "de-x-mine",
        "x-all-mine",
        "i-navajo",
        "sgn-BE-FR",
        "EN",
    ],
    "nsid": ["com.example.thing", "app.bsky.feed.post", "a.b-c.d9", "com.example.thingV2"],
    "record-key": ["3mbd355eai62b", "self", "a.b:c~d_e-f", "...", "k" * 512],
    "space-ref": [f"at://{DID}/space/com.example.room/main"],
    "tid": ["3mbd355eai62b", "2222222222222", "jzzzzzzzzzzzz"],
    "uri": [
        "https://example.com",
        "https://example.com/a?b=c#d",
        "https://müller.example/straße",
        "at://alice.test/com.example.thing/self",
        "did:web:example.com",
        "view-source:x",
        "file:///etc/motd",
        "a+b.c-d:e",
        "https://example.com/" + "x" * 8000,
    ],
}
INVALID = {
    "at-identifier": ["alice", "did:plc:", "@alice.test", "did:plc:a b"],
    "at-uri": [
        "at://",
        f"{POST}/",
        f"{POST}#/text",
        f"{POST}?a=b",
        f"at://{DID}/",
        f"at://{DID}/thing",
        f"at://{DID}/com.example.thing/.",
        f"at://{DID}/com.example.thing/..",
        f"at://{DID}/com.example.thing/a/b",
        f"at://{DID}/com.example.thing/a%20b",
        f"at://{DID}/com.example.thing/{'k' * 513}",
        "at://alice/com.example.thing/self",
        f"AT://{DID}",
        f"https://{DID}",
        f" {POST}",
        f"{POST}\n",
        f"at://{DID}/space",
        f"at://{DID}/space/com.example.room",
        f"at://{DID}/space/com.example.room/main/{DID}",
        "at://alice.test/space/com.example.room/main",
    ],
    "cid": [
        "short",
        "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n",
        f"{CID} ",
        f"ipfs://{CID}",
        "b" * 257,
    ],
    "datetime": [
        "yesterday",
        "2026-11-24",
        "2026-11-24T10:11Z",
        "2026-11-24T10:11:12",
        "2026-11-24T10:11:12.Z",
        "2026-11-24 10:11:12Z",
        "2026-11-24t10:11:12Z",
        "2026-11-24T10:11:12z",
        "2026-11-24T10:11:12-00:00",
        "2026-11-24T10:11:12+0000",
        "2026-11-24T10:11:12+24:00",
        "2026-11-24T24:00:00Z",
        "2026-11-24T10:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T10:11:12Z",
        "2026-00-24T10:11:12Z",
        "2026-11-00T10:11:12Z",
        "0000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "12026-11-24T10:11:12Z",
        "2026-11-24T10:11:12Z\n",
        "\uff12\uff10\uff12\uff16-11-24T10:11:12Z",
        f"2026-11-24T10:11:12.{'1' * 60}Z",
    ],
    "did": [
        "did",
        "did:plc",
        "did:plc:",
        "DID:plc:abc",
        "did:PLC:abc",
        "did:plc:abc:",
        "alice.test",
    ],
    "handle": ["alice", "alice.", ".alice.test", "al_ice.test", "alice.9", "-a.test", "a" * 254],
    "language": [
        "e",
        "123",
        "ja-",
        "de-419-DE",
        "a-DE",
        "en_US",
        "en--us",
        "not a language",
        "en\n",
    ],
    "nsid": [
        "com.example",
        "com.example.9",
        "com.example.a-b",
        "com..thing",
        "-a.b.c",
        "com.exa mple.c",
    ],
    "record-key": [".", "..", "a/b", "a b", "k" * 513, "ключ", "a\n"],
    "space-ref": [POST, f"at://{DID}/space/com.example.room/main/{DID}/com.example.thing/one"],
    "tid": ["3mbd355eai62", "3mbd355eai62bb", "kmbd355eai62b", "3MBD355EAI62B", "1mbd355eai62b"],
    "uri": [
        "example.com",
        "https:",
        "https://",
        "://example.com",
        "9p://example.com",
        "https://exam ple.com",
        "https://example.com\n",
        "https://example.com/" + "x" * 8192,
        "https://example.com/" + "ü" * 4096,
    ],
}


def recognised(name: str, text: str) -> bool:
    form = FORMATS[name]
    return form.common.fullmatch(text) is not None or form.is_valid(text)


def test_every_format_has_examples() -> None:
    assert set(VALID) == set(INVALID) == set(FORMATS)


@pytest.mark.parametrize(("name", "text"), [(k, text) for k, v in VALID.items() for text in v])
def test_a_valid_string_of_a_format_is_recognised(name: str, text: str) -> None:
    assert recognised(name, text)


@pytest.mark.parametrize(("name", "text"), [(k, text) for k, v in INVALID.items() for text in v])
def test_an_invalid_string_of_a_format_is_refused(name: str, text: str) -> None:
    assert not recognised(name, text)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_empty_string_is_of_no_format(name: str) -> None:
    assert not recognised(name, "")


@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(deadline=None, derandomize=True)
@given(data=st.data())
def test_the_pattern_of_the_common_values_matches_none_that_the_whole_format_refuses(
    name: str, data: st.DataObject
) -> None:
    form = FORMATS[name]
    assert form.is_valid(data.draw(st.from_regex(form.common, fullmatch=True)))


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize(
    "part", ["a", "1", "-a", "-12345", ".a", "/", ":", "-a-aa", "%41", "at://"]
)
def test_a_hostile_string_of_a_megabyte_takes_no_long_time(name: str, part: str) -> None:
    # A pattern that tries over and over would not end within the time that a test is given.
    text = part * (1_000_000 // len(part))
    assert recognised(name, text) is recognised(name, text)
    recognised(name, f"{text}\n")


@pytest.mark.parametrize(
    ("kind", "rkey", "fits"),
    [
        ("tid", "3mbd355eai62b", True),
        ("tid", "self", False),
        ("any", "anything:~_.-", True),
        ("any", ".", False),
        ("nsid", "com.example.thing", True),
        ("nsid", "thing", False),
        ("literal:self", "self", True),
        ("literal:self", "other", False),
    ],
)
def test_record_keys_are_of_the_kind_that_the_lexicon_says(
    kind: str, rkey: str, fits: bool
) -> None:
    matches = record_key(kind)
    assert matches is not None
    assert bool(matches(rkey)) is fits


def test_there_are_no_other_kinds_of_record_keys() -> None:
    assert record_key("uuid") is None
    assert record_key("") is None
