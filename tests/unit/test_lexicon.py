"""Lexicons compiled to checks: every type and every limit, references, and broken documents."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.atproto import lexicon_checks
from actors.atproto.lexicon import Lexicon, LexiconError
from actors.atproto.lexicon_checks import Problem

CID = "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
LINK = {"$link": CID}
BLOB = {"$type": "blob", "ref": LINK, "mimeType": "image/png", "size": 5}
ID = "com.example.thing"
FLAG = "\U0001f3f4"  # four bytes, two units of UTF-16, one grapheme
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # eighteen bytes, one grapheme


def lexicon(*documents: dict[str, Any]) -> Lexicon:
    return Lexicon({document["id"]: document for document in documents}.get)


def document(nsid: str = ID, **definitions: Any) -> dict[str, Any]:
    return {"lexicon": 1, "id": nsid, "defs": definitions}


def record(**properties: Any) -> dict[str, Any]:
    """A definition of records, all of whose properties may be absent."""
    return {
        "type": "record",
        "key": "any",
        "record": {"type": "object", "properties": properties},
    }


def checked(schema: dict[str, Any], value: Any, **definitions: Any) -> str | None:
    """What a property of this schema is told of a value."""
    check = lexicon(document(main=record(value=schema), **definitions)).record(ID)
    assert check is not None
    problem = check("key", {"$type": ID, "value": value})
    return None if problem is None else str(problem)


TYPES: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    ({"type": "boolean"}, [True, False], [0, 1, "true", None, [], {}]),
    ({"type": "boolean", "const": True}, [True], [False, 1]),
    ({"type": "integer"}, [0, -5, 2**53 - 1], [True, False, "1", None, 1.5, [], {}]),
    ({"type": "integer", "minimum": 2, "maximum": 4}, [2, 4], [1, 5, True]),
    ({"type": "integer", "enum": [1, 3]}, [1, 3], [2, True]),
    ({"type": "integer", "const": 0}, [0], [1, False]),
    ({"type": "null"}, [None], [0, "", {}]),
    ({"type": "string"}, ["", "x", "x" * 100_000], [1, None, True, [], {}]),
    ({"type": "string", "maxLength": 4}, ["", "abcd", FLAG, "éé"], ["abcde", FLAG + "a", "ééa"]),
    ({"type": "string", "minLength": 4}, ["abcd", FLAG, "éé"], ["", "abc", "é"]),
    ({"type": "string", "maxGraphemes": 2}, ["ab", FLAG * 2, FAMILY * 2], ["abc", FAMILY * 3]),
    ({"type": "string", "maxGraphemes": 2}, ["\r\n\r\n", "e\u0301e\u0301"], ["\n\n\n", "\r\n" * 3]),
    ({"type": "string", "minGraphemes": 1}, ["a", FAMILY], [""]),
    ({"type": "string", "minGraphemes": 2}, ["ab", FAMILY * 2], ["a", FAMILY, "\r\n"]),
    ({"type": "string", "maxLength": 8, "maxGraphemes": 3}, ["abc", FLAG * 2], [FLAG * 3, "abcd"]),
    ({"type": "string", "enum": ["a", "b"]}, ["a", "b"], ["c", ""]),
    ({"type": "string", "const": "a"}, ["a"], ["b"]),
    ({"type": "string", "knownValues": ["a"]}, ["a", "b"], [1]),
    ({"type": "string", "format": "did"}, ["did:web:a.test"], ["a.test", "", 1, None]),
    ({"type": "string", "format": "uri", "maxLength": 10}, ["https://a"], ["https://abc", "abc"]),
    ({"type": "cid-link"}, [LINK], [CID, {"$link": "no"}, {"$link": 1}, {}, {**LINK, "a": 1}]),
    ({"type": "bytes"}, [{"$bytes": ""}, {"$bytes": "AAEC"}], ["AAEC", {"$bytes": "A"}, LINK]),
    ({"type": "bytes"}, [{"$bytes": "/+"}], [{"$bytes": "_-"}, {"$bytes": 1}, {"$bytes": "AA=="}]),
    (
        {"type": "bytes", "minLength": 1, "maxLength": 3},
        [{"$bytes": "AA"}, {"$bytes": "AAEC"}],
        [{"$bytes": ""}, {"$bytes": "AAECAw"}],
    ),
    (
        {"type": "blob", "accept": ["image/*"], "maxSize": 4},
        [BLOB, {**BLOB, "size": -1}, {**BLOB, "mimeType": "video/mp4"}],
        [{**BLOB, "size": "5"}, {**BLOB, "size": -2}, {**BLOB, "size": True}, {}, "blob", None],
    ),
    (
        {"type": "blob"},
        [{"cid": CID, "mimeType": "image/png"}],
        [{"cid": "no", "mimeType": "image/png"}, {"cid": CID, "mimeType": ""}, {"cid": CID}],
    ),
    (
        {"type": "blob"},
        [BLOB],
        [
            {**BLOB, "ref": CID},
            {**BLOB, "$type": "image"},
            {**BLOB, "mimeType": None},
            {**BLOB, "alt": "x"},
            {"$type": "blob", "ref": LINK, "mimeType": "image/png"},
        ],
    ),
    ({"type": "unknown"}, [{}, {"a": 1}, {"$type": "b"}], [None, "a", 1, [], LINK, BLOB]),
    ({"type": "unknown"}, [{"a": LINK}, {**LINK, "a": 1}], [{"$bytes": ""}]),
    (
        {"type": "array", "items": {"type": "integer"}, "minLength": 1, "maxLength": 2},
        [[1], [1, 2]],
        [[], [1, 2, 3], [True], [None], "12", {"0": 1}, None],
    ),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        [{"a": 1}, {"a": 1, "b": None}],
        [{}, {"a": None}, {"a": "1"}, [], "a", None],
    ),
    ({"type": "object", "properties": {}}, [{}, {"a": LINK}], [LINK, {"$bytes": ""}, [], None]),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "required": ["a"],
            "nullable": ["a"],
        },
        [{"a": None}, {"a": 1}],
        [{}, {"a": 1, "b": None}],
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), TYPES)
def test_values_of_every_type_and_within_its_limits_pass_and_others_do_not(
    schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    assert [value for value in good if checked(schema, value) is not None] == []
    assert [value for value in bad if checked(schema, value) is None] == []


def test_a_problem_names_the_path_and_the_reason() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}
    assert checked(schema, [{}, {"a": 1}]) == "value/1/a: must be a string, not an integer"
    assert checked({"type": "integer"}, LINK) == "value: must be an integer, not a link"


def test_a_problem_is_short_whatever_the_record_says() -> None:
    megabyte = "x" * 1_000_000
    properties = {"properties": {megabyte: {"type": "integer"}}}
    hostile: list[tuple[dict[str, Any], Any]] = [
        ({"type": "string", "format": "did"}, megabyte),
        ({"type": "string", "enum": ["a"]}, megabyte),
        ({"type": "string", "const": "a"}, megabyte),
        ({"type": "union", "refs": [], "closed": True}, {"$type": megabyte}),
        ({"type": "object", **properties}, {megabyte: None}),
    ]
    for schema, value in hostile:
        problem = checked(schema, value)
        assert problem is not None
        assert len(problem) < 500


def test_graphemes_are_counted_only_where_they_can_be_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[str] = []
    count: Callable[[str], int] = lexicon_checks.graphemes

    def counting(text: str) -> int:
        counted.append(text)
        return count(text)

    monkeypatch.setattr(lexicon_checks, "graphemes", counting)
    schema = {"type": "string", "maxGraphemes": 300, "maxLength": 3000}
    assert checked(schema, "é" * 300) is None
    assert checked(schema, FLAG * 200) is None
    assert counted == []
    assert checked(schema, "e\u0301" * 300) is None
    assert len(counted) == 1
    assert checked(schema, "é" * 301) == "value: has 301 graphemes, 300 are allowed"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("abc", 3),
        ("\r\n", 1),
        ("\n\r", 2),
        (FAMILY, 1),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", 2),  # two flags
        ("\u0928\u093f", 1),  # a letter and its vowel sign
        ("\u0915\u094d\u0937", 1),  # two letters joined
        ("\u1100\u1161\u11a8", 1),  # a syllable of three parts
    ],
)
def test_graphemes_are_what_a_reader_sees(text: str, count: int) -> None:
    assert lexicon_checks.graphemes(text) == count


def test_an_object_that_contains_itself_is_checked_to_the_bottom() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"type": "ref", "ref": "#node"}, "n": {"type": "integer"}},
    }
    value: dict[str, Any] = {"n": "wrong"}
    for _ in range(20):
        value = {"n": 1, "next": value}
    assert checked({"type": "ref", "ref": "#node"}, value["next"], node=node) == (
        f"value/{'next/' * 19}n: must be an integer, not a string"
    )


def test_documents_may_refer_to_each_other_in_a_circle() -> None:
    one = document("a.b.one", main=record(two={"type": "ref", "ref": "a.b.two"}))
    two = document(
        "a.b.two",
        main={"type": "object", "properties": {"one": {"type": "ref", "ref": "a.b.one#main"}}},
    )
    check = lexicon(one, two).record("a.b.one")
    assert check is not None
    assert check("key", {"two": {"one": {"two": {}}}}) is None
    assert check("key", {"two": {"one": {"two": 1}}}) == Problem(
        "two/one/two", "must be an object, not an integer"
    )


@pytest.mark.parametrize("ref", ["com.example.elsewhere", "com.example.elsewhere#part", "#nothing"])
def test_a_reference_to_what_nobody_has_lets_all_but_null_pass(ref: str) -> None:
    schema = {"type": "ref", "ref": ref}
    everything: list[Any] = [1, "a", {}, []]
    assert [value for value in everything if checked(schema, value) is not None] == []
    assert checked(schema, None) is not None


def test_a_reference_may_point_to_a_string_an_array_or_a_token() -> None:
    ref = {"type": "ref", "ref": "#it"}
    assert checked(ref, "abc", it={"type": "string", "maxLength": 2}) is not None
    assert checked(ref, [1], it={"type": "array", "items": {"type": "integer"}}) is None
    assert checked(ref, f"{ID}#it", it={"type": "token"}) is None
    assert checked(ref, f"{ID}#other", it={"type": "token"}) is not None


PART = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize("closed", [True, False])
def test_a_union_checks_the_variant_that_the_type_names(closed: bool) -> None:
    union = {"type": "union", "refs": ["#part", "com.example.whole"], "closed": closed}
    whole = document("com.example.whole", main=PART)
    check = lexicon(document(main=record(value=union), part=PART), whole).record(ID)
    assert check is not None

    def passes(value: Any) -> bool:
        return check("key", {"value": value}) is None

    for kind in (f"{ID}#part", "com.example.whole", "com.example.whole#main"):
        assert passes({"$type": kind, "n": 1})
        assert not passes({"$type": kind})
        assert not passes({"$type": kind, "n": "1"})
    others: list[Any] = [{"n": 1}, {"$type": ""}, {"$type": 1}, {"$type": None}, "a", 1, None, []]
    assert [value for value in others if passes(value)] == []
    # `#part` alone is no name outside of its document.
    for kind in ("com.example.unknown", f"{ID}#other", "#part", ID):
        assert passes({"$type": kind, "n": "1"}) is not closed


def test_a_closed_union_takes_a_variant_that_it_names_and_nobody_has() -> None:
    union = {"type": "union", "refs": ["com.example.elsewhere"], "closed": True}
    assert checked(union, {"$type": "com.example.elsewhere"}) is None


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("tid", "3mbd355eai62b", "self"),
        ("literal:self", "self", "3mbd355eai62b"),
        ("nsid", "com.example.thing", "thing"),
        ("any", "thing", ".."),
    ],
)
def test_the_record_key_is_checked_with_the_record(key: str, good: str, bad: str) -> None:
    check = lexicon(document(main={**record(), "key": key})).record(ID)
    assert check is not None
    assert check(good, {}) is None
    assert check(bad, {}) == Problem("", f"the record key must be {key}, not {bad!r}")


def test_only_collections_that_a_document_defines_have_a_check() -> None:
    known = lexicon(document(main=record()), document("a.b.query", main={"type": "query"}))
    assert known.record(ID) is not None
    assert known.record("a.b.query") is None
    assert known.record("a.b.unknown") is None
    assert lexicon(document(part=PART)).record(ID) is None


BROKEN: list[dict[str, Any]] = [
    {"id": ID},
    {"id": ID, "lexicon": 2, "defs": {}},
    {"id": ID, "lexicon": 1},
    {"id": ID, "lexicon": 1, "defs": []},
    {"id": ID, "lexicon": 1, "defs": {"main": "record"}},
    {"lexicon": 1, "defs": {}},
    document(main={**record(), "key": "uuid"}),
    document(main={"type": "record", "record": {"type": "object"}}),
    document(main={"type": "record", "key": "tid"}),
    document(main={"type": "strange"}),
    document(main={}),
    document(main=record(a="string")),
    document(main=record(a={"type": "number"})),
    document(main=record(a={"type": "string", "format": "colour"})),
    document(main=record(a={"type": "string", "format": 1})),
    document(main=record(a={"type": "string", "maxLength": "10"})),
    document(main=record(a={"type": "string", "maxLength": True})),
    document(main=record(a={"type": "string", "enum": "a"})),
    document(main=record(a={"type": "integer", "minimum": 1.5})),
    document(main=record(a={"type": "array"})),
    document(main=record(a={"type": "ref"})),
    document(main=record(a={"type": "union"})),
    document(main=record(a={"type": "union", "refs": [1]})),
    document(main={"type": "object", "properties": []}),
    document(main={"type": "object", "properties": {}, "required": "a"}),
    document(main=record(a={"type": "ref", "ref": "#call"}), call={"type": "query"}),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_document_is_refused_with_its_place(broken: dict[str, Any]) -> None:
    with pytest.raises(LexiconError, match=r"com\.example\.thing|needs an id"):
        lexicon({"id": ID, **broken}).compile_all(broken)


def test_a_document_that_was_refused_is_refused_again() -> None:
    broken = lexicon(document(main=record(a={"type": "number"})))
    for _ in range(2):
        with pytest.raises(LexiconError):
            broken.record(ID)
