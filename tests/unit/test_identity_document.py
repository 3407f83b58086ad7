"""DID documents and handles as they are on the network, and as an attacker would write them."""

import json
from typing import Any

import pytest

from actors.atproto import multikey
from actors.identity import handles
from actors.identity.document import MAX_BYTES, BadDocument, Document, key_text, read
from tests.corpus.files import document

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
KEY = "zQ3shMYdM8Kuh6LHsfSkGi2tUnnX1e4u286ZN1qzm8wcrk3zh"
OTHER = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"


def made(**parts: Any) -> bytes:
    return json.dumps({"id": DID, **parts}).encode()


def claimed(*names: Any) -> str | None:
    return read(made(alsoKnownAs=list(names)), DID).claimed


def service(id_: str, type_: str, endpoint: Any, **more: Any) -> Document:
    entry = {"id": id_, "type": type_, "serviceEndpoint": endpoint}
    return read(made(service=[entry]), DID, **more)


def pds(endpoint: Any, **more: Any) -> str | None:
    return service("#atproto_pds", "AtprotoPersonalDataServer", endpoint, **more).pds


def key(id_: str, text: Any, type_: Any = "Multikey") -> Document:
    entry = {"id": id_, "type": type_, "controller": DID, "publicKeyMultibase": text}
    return read(made(verificationMethod=[entry]), DID)


@pytest.mark.parametrize("did", sorted(document("did-documents")))
def test_every_recorded_document_gives_all_that_is_in_it(did: str) -> None:
    recorded = document("did-documents")[did]
    found = read(json.dumps(recorded).encode(), did, development=True)
    assert found.claimed == recorded["alsoKnownAs"][0].removeprefix("at://")
    endpoints = {each["id"].removeprefix(did): each for each in recorded["service"]}
    assert found.pds == endpoints["#atproto_pds"]["serviceEndpoint"]
    labeler = endpoints.get("#atproto_labeler")
    assert found.labeler == (None if labeler is None else labeler["serviceEndpoint"])
    methods = {each["id"].removeprefix(did): each for each in recorded["verificationMethod"]}
    for name, text in (("#atproto", found.signing_key), ("#atproto_label", found.label_key)):
        if name not in methods:
            assert text is None
            continue
        assert text is not None
        method = methods[name]
        whole = multikey.parse(method["publicKeyMultibase"], method["type"])
        kept = multikey.parse(text)
        assert kept.curve is whole.curve
        assert kept.point[1:] == whole.point[1:33]
        assert kept.point[0] == 2 + whole.point[-1] % 2 or len(whole.point) == 33


def test_a_key_is_the_same_text_in_whatever_form_it_came() -> None:
    key_of_document = key("#atproto", KEY).signing_key
    assert key_of_document == KEY
    assert key_text(multikey.parse(KEY)) == KEY


def test_ids_may_be_relative_or_absolute_and_those_of_others_are_none() -> None:
    for id_ in ("#atproto", f"{DID}#atproto"):
        assert key(id_, KEY).signing_key == KEY
    for id_ in ("atproto", "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb#atproto", f"{DID}{DID}#atproto", ""):
        assert key(id_, KEY).signing_key is None
    assert key(f"{DID}#atproto_label", OTHER).label_key == OTHER


def test_the_first_entry_of_an_id_counts() -> None:
    entries = [
        {"id": "#atproto", "type": "Multikey", "publicKeyMultibase": KEY},
        {"id": f"{DID}#atproto", "type": "Multikey", "publicKeyMultibase": OTHER},
    ]
    assert read(made(verificationMethod=entries), DID).signing_key == KEY


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("zTooShort", "Multikey"),
        ("m" + KEY[1:], "Multikey"),
        ("z" * 5000, "Multikey"),
        (None, "Multikey"),
        (KEY, None),
        ({"a": 1}, "Multikey"),
        ("z0OIl", "EcdsaSecp256k1VerificationKey2019"),
    ],
)
def test_what_is_no_key_is_none(text: Any, type_: Any) -> None:
    assert key("#atproto", text, type_).signing_key is None


# --- handles -------------------------------------------------------------------------------------


def test_the_first_valid_handle_counts_in_small_letters() -> None:
    assert claimed("at://Ann.Example.COM", "at://second.example.org") == "ann.example.com"
    assert claimed("https://a.com", 5, None, "at://", "at://b.example.org") == "b.example.org"


@pytest.mark.parametrize(
    "name",
    [
        f"at://{DID}",
        "at://did:web:a.example.com",
        "at://nodots",
        "at://a..com",
        "at://-a.com",
        "at://a.com/path",
        "at://a.com:80",
        "at://a.com.",
        "at://a.123",
        "at://user@a.com",
        "at:// a.com",
        "at://a.com\n",
        "at://a.com\0",
        "at://\u212aelvin.com",  # the sign of Kelvin, which is a k in small letters
        "at://пример.com",
        "at://" + "a" * 64 + ".com",
        "at://" + "a." * 130 + "com",
        "AT://a.com",
        "a.com",
    ],
)
def test_what_is_no_handle_is_passed_over(name: str) -> None:
    assert claimed(name) is None
    assert claimed(name, "at://good.example.org") == "good.example.org"


@pytest.mark.parametrize(
    "top", ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion"]
)
def test_nobody_can_have_a_handle_under_a_reserved_name(top: str) -> None:
    assert handles.is_reserved(f"ann.{top}")
    assert handles.is_reserved(f"ann.{top.upper()}", development=True)


def test_a_name_for_tests_is_a_handle_in_development_only() -> None:
    assert handles.is_reserved("ann.test")
    assert not handles.is_reserved("ann.test", development=True)
    assert not handles.is_reserved("test.example.com")


def test_the_texts_of_the_name_system_name_each_did_once() -> None:
    other = "did:web:a.example.com"
    assert handles.of_texts([]) == []
    assert handles.of_texts([f"did={DID}", "v=spf1", f"did={DID} "]) == [DID]
    assert handles.of_texts([f"did={DID}", f"did={other}"]) == [DID, other]
    assert handles.of_texts(["did=", "did=nonsense", f"DID={DID}", f" did={DID}"]) == []


def test_a_site_names_a_did_in_its_first_line() -> None:
    assert handles.of_well_known(f"  {DID}\r\nmore".encode()) == DID
    for body in (b"", b"<html>", b"\xff\xfe", f"x {DID}".encode(), DID.encode() + b" " * 3000):
        assert handles.of_well_known(body) is None


# --- services ------------------------------------------------------------------------------------


def test_a_server_is_kept_as_its_origin() -> None:
    assert pds("https://PDS.example.com/") == "https://pds.example.com"
    assert pds("https://pds.example.com:8443") == "https://pds.example.com:8443"
    assert pds("http://localhost:2583", development=True) == "http://localhost:2583"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://pds.example.com",
        "https://pds.example.com/path",
        "https://pds.example.com?x",
        "https://user@pds.example.com",
        "https://pds.example.com:0",
        "https://pds.example.com:65536",
        "https://pds example.com",
        "https://pds.example.com\n",
        "https://[::1]",
        "https://",
        "https://" + "a" * 300,
        "https://пример.com",
        "ftp://pds.example.com",
        "javascript:alert(1)",
        ["https://pds.example.com"],
        {"uri": "https://pds.example.com"},
        None,
    ],
)
def test_what_is_no_origin_is_no_server(endpoint: Any) -> None:
    assert pds(endpoint) is None


def test_a_service_of_another_type_is_none() -> None:
    url = "https://a.example.com"
    assert service("#atproto_pds", "AtprotoLabeler", url).pds is None
    assert service("#atproto_labeler", "AtprotoLabeler", url).labeler == url
    assert service(f"{DID}#atproto_labeler", "AtprotoLabeler", url).labeler == url


# --- whole documents -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"null",
        b"5",
        b"{}",
        b"<html>",
        json.dumps({"id": "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"}).encode(),
        json.dumps({"id": [DID]}).encode(),
        json.dumps({"id": DID.upper()}).encode(),
        b"[" * 60_000,
        b'{"a":' * 10_000,
        made(padding="x" * MAX_BYTES),
    ],
)
def test_what_is_no_document_of_the_did_is_refused(body: bytes) -> None:
    with pytest.raises(BadDocument) as refused:
        read(body, DID)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("odd", [None, 5, "text", {}, [[]], [None, 5, "x", {"id": 5}, {}], True])
def test_odd_parts_are_passed_over_and_the_rest_counts(odd: Any) -> None:
    parts = {"alsoKnownAs": odd, "service": odd, "verificationMethod": odd}
    assert read(made(**parts), DID) == Document()
    assert read(made(**{**parts, "alsoKnownAs": ["at://a.example.com"]}), DID).claimed


def test_a_document_full_of_entries_is_read_at_once() -> None:
    entries = [{"id": f"#x{number}"} for number in range(3000)]
    entries.append({"id": "#atproto", "type": "Multikey", "publicKeyMultibase": KEY})
    body = made(verificationMethod=entries)
    assert len(body) < MAX_BYTES
    assert read(body, DID).signing_key == KEY
