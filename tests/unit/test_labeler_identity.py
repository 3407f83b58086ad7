"""Where a labeler is, and its key: what a DID document may say, and what it may not."""

import asyncio
import json
from typing import Any

import pytest

from actors.atproto import multikey
from actors.identity.document import MAX_BYTES
from actors.labeler_identity import (
    KNOWN_SECONDS,
    DocumentLookup,
    Known,
    LabelerIdentity,
    NoAnswer,
    NoLabeler,
    known_of,
    labeler_of,
)
from actors.outbound import Kind, Outbound, OutboundError
from actors.store.labelers import Identified
from tests.servers import faults
from tests.servers.client import developing, network
from tests.servers.directory import PlcDirectory
from tests.servers.labels import LabelKey, labeler_document

DID = "did:plc:6rccq36mzkt43saroyej2tyx"
KEY = LabelKey()


def made(**changes: Any) -> dict[str, Any]:
    return {**labeler_document(DID, "https://mod.example.com", KEY), **changes}


def read(document: Any) -> Any:
    return labeler_of(json.dumps(document).encode(), DID)


def test_a_document_tells_the_stream_and_the_key() -> None:
    found = read(made())
    assert found.stream == ("wss://mod.example.com/xrpc/com.atproto.label.subscribeLabels")
    assert found.key == multikey.parse(KEY.multikey)


def test_a_labeler_without_tls_is_for_development() -> None:
    document = labeler_document(DID, "http://localhost:2583", KEY)
    with pytest.raises(NoLabeler, match="no service"):
        read(document)
    found = labeler_of(json.dumps(document).encode(), DID, development=True)
    assert found.endpoint == "ws://localhost:2583"


def test_fragments_may_stand_behind_the_did_and_the_first_entry_counts() -> None:
    document = made()
    document["service"] = [
        {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer"},
        {
            "id": f"{DID}#atproto_labeler",
            "type": "AtprotoLabeler",
            "serviceEndpoint": "https://first.example.com",
        },
        *document["service"],
    ]
    assert read(document).endpoint == "wss://first.example.com"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "no JSON object"),
        (made(id="did:plc:drlgzakhpthmyl7t7brzakyg"), "document of"),
        (made(service=None), "no service"),
        (made(verificationMethod=[]), "no key"),
        (
            made(
                verificationMethod=[
                    {"id": "#atproto", "type": "Multikey", "publicKeyMultibase": KEY.multikey}
                ]
            ),
            "no key",
        ),
        (labeler_document(DID, "ftp://mod.example.com", KEY), "no service"),
        (labeler_document(DID, "https://user@mod.example.com", KEY), "no service"),
    ],
)
def test_a_document_that_tells_of_no_labeler_says_why(document: Any, complaint: str) -> None:
    with pytest.raises(NoLabeler, match=complaint):
        read(document)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 60_000])
def test_what_is_no_json_is_no_document(body: bytes) -> None:
    with pytest.raises(NoLabeler):
        labeler_of(body, DID)


def look_up(did: str, directory: PlcDirectory, *, development: bool = True) -> Any:
    async def go() -> Any:
        settings = developing if development else network
        async with Outbound(settings(plc_url=directory.url)) as outbound:
            return await DocumentLookup(outbound, directory.url, development=development)(did)

    return asyncio.run(go())


def test_a_lookup_asks_the_directory_and_tells_apart_nobody_and_not_now() -> None:
    with PlcDirectory([(DID, made())]) as directory:
        assert look_up(DID, directory).endpoint == "wss://mod.example.com"
        with pytest.raises(NoLabeler, match="no directory knows it"):
            look_up("did:plc:drlgzakhpthmyl7t7brzakyg", directory)
        directory.tombstones.add(DID)
        with pytest.raises(NoLabeler, match="no directory knows it"):
            look_up(DID, directory)
        directory.fail(faults.status(503))
        with pytest.raises(OutboundError):
            look_up(DID, directory)
        directory.heal()
        directory.fail(faults.content(b" " * (MAX_BYTES + 1)))
        with pytest.raises(OutboundError) as error:
            look_up(DID, directory)
        assert error.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (403, b"{}"),
        (404, b"not here"),
        (410, b"[]"),
        (200, b"<html>log in first</html>"),
        (200, json.dumps(made(id="did:plc:drlgzakhpthmyl7t7brzakyg")).encode()),
    ],
)
def test_what_is_no_answer_of_a_directory_says_nothing_of_a_labeler(code: int, body: bytes) -> None:
    with PlcDirectory([(DID, made())]) as directory:
        directory.fail(faults.status(code, body=body))
        with pytest.raises(NoAnswer):
            look_up(DID, directory)


def test_what_was_found_out_does_for_a_day_and_what_is_due_only_where_nobody_answers() -> None:
    found = Identified("https://mod.example.com", KEY.multikey, 3_600.0)
    identity = LabelerIdentity("wss://mod.example.com", multikey.parse(KEY.multikey))
    assert known_of(found) == Known(identity, KNOWN_SECONDS - 3_600.0)
    assert known_of(found._replace(age=KNOWN_SECONDS + 1)) == Known(identity, 0.0)
    assert known_of(found._replace(age=None)) == Known(identity, 0.0)
    bare = found._replace(labeler="http://127.0.0.1:80")
    assert known_of(bare) is None
    assert known_of(bare, development=True) is not None


def test_hosts_of_did_web_are_asked_but_localhost_in_development_only() -> None:
    with PlcDirectory() as directory:
        did = f"did:web:localhost%3A{directory.port}"
        with pytest.raises(NoLabeler, match="HTTP 400"):
            look_up(did, directory)
        assert directory.requests[0].path == "/.well-known/did.json"
        with pytest.raises(NoLabeler, match="development"):
            look_up(did, directory, development=False)
        with pytest.raises(NoLabeler, match="neither"):
            look_up("did:key:abc", directory)
