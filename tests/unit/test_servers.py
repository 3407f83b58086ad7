"""The loopback servers of the tests speak the real protocols."""

import asyncio
import json
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect

from actors.atproto import car, cbor, mst, multikey, signature
from actors.outbound import Outbound, Response
from bench.network import Network
from tests.corpus.files import demo_frames, document, label_frames, repositories
from tests.servers.certificates import authority
from tests.servers.client import developing, network
from tests.servers.directory import PlcDirectory, Sites
from tests.servers.dns import DnsServer
from tests.servers.internet import PUBLIC
from tests.servers.labeler import PATH, Labeler
from tests.servers.labels import LabelKey
from tests.servers.network import (
    pds_of,
    recorded_documents,
    recorded_repositories,
    synthetic_documents,
)
from tests.servers.pds import Pds


def ask(*urls: str) -> list[Response]:
    async def go() -> list[Response]:
        async with Outbound(developing(requests_per_second=10_000.0)) as outbound:
            return [await outbound.get(url, limit_bytes=10**8, seconds=20) for url in urls]

    return asyncio.run(go())


def same(first: bytes, second: bytes) -> bool:
    return car.read(first) == car.read(second)


def test_the_directory_knows_documents_tombstones_and_nothing_else() -> None:
    documents = recorded_documents(pds="http://127.0.0.1:1")
    did, gone = list(documents)[:2]
    with PlcDirectory(documents.items()) as plc:
        plc.tombstones.add(gone)
        found, tombstone, none, broken = ask(
            *(f"{plc.url}/{name}" for name in (did, gone, "did:plc:nobody", "nonsense"))
        )
    assert json.loads(found.body) == documents[did]
    assert json.loads(found.body)["service"][0]["serviceEndpoint"] == "http://127.0.0.1:1"
    assert (tombstone.status, none.status, broken.status) == (410, 404, 400)
    assert plc.asked()[f"/{did}"] == 1


def test_sites_answer_for_the_host_that_is_asked() -> None:
    with Sites() as sites:
        sites.documents["127.0.0.1"] = {"id": "did:web:127.0.0.1"}
        sites.handles["localhost"] = "did:plc:abc"
        known, handle, neither = ask(
            f"{sites.url}/.well-known/did.json",
            f"http://localhost:{sites.port}/.well-known/atproto-did",
            f"{sites.url}/.well-known/atproto-did",
        )
    assert json.loads(known.body)["id"] == "did:web:127.0.0.1"
    assert handle.body == b"did:plc:abc"
    assert neither.status == 404


def test_the_recorded_repositories_come_out_as_they_were() -> None:
    with Pds(recorded_repositories()) as pds:
        base = f"{pds.url}/xrpc/com.atproto.sync.getRepo?did="
        urls = [base + quote(did) for did in pds.repositories]
        answers = ask(*urls)
    assert len(answers) == len(repositories())
    recorded = {
        cbor.decode(car.read(data).blocks[car.read(data).root])["did"]: data
        for data in repositories().values()
    }
    for did, answer in zip(pds.repositories, answers, strict=True):
        assert answer.headers["content-type"] == "application/vnd.ipld.car"
        assert same(answer.body, recorded[did])


def test_what_a_firehose_announced_is_what_the_repositories_hold() -> None:
    pds, held = pds_of(demo_frames()), {one.did: one for one in recorded_repositories()}
    # What an account brought along when it moved was never announced.
    moved = document("special")["life"]["migrated"]
    here = {did for did, one in pds.repositories.items() if one.status is None}
    alive = sorted(here & held.keys() - {moved})
    assert len(alive) > 50
    for did in alive:
        assert pds.repositories[did].records() == held[did].records(), did


def test_a_record_comes_with_its_proof_and_its_absence_too() -> None:
    network = Network(seed=4, users=20)
    with pds_of(network.events(600)) as pds:
        repository = max(pds.repositories.values(), key=lambda one: len(one.blocks))
        path, name = next(iter(repository.records().items()))
        collection, rkey = path.split("/")
        proof = f"{pds.url}/xrpc/com.atproto.sync.getRecord?did={repository.did}"
        there, absent, plain, latest = ask(
            f"{proof}&collection={collection}&rkey={rkey}",
            f"{proof}&collection={collection}&rkey=absent",
            f"{pds.url}/xrpc/com.atproto.repo.getRecord?repo={repository.did}"
            f"&collection={collection}&rkey={rkey}",
            f"{pds.url}/xrpc/com.atproto.sync.getLatestCommit?did={repository.did}",
        )
        shown = car.read(there.body)
        signed = cbor.decode(shown.blocks[shown.root])
        assert mst.Tree.load(signed["data"], shown.blocks).get(path.encode()) == name
        assert name in shown.blocks
        empty = car.read(absent.body)
        key = f"{collection}/absent".encode()
        assert mst.Tree.load(signed["data"], empty.blocks).get(key) is None
        assert json.loads(plain.body)["value"] == repository.value(name)
        assert json.loads(latest.body)["rev"] == signed["rev"]
    documents = synthetic_documents(network, "http://127.0.0.1:2")
    assert documents[repository.did]["service"][0]["serviceEndpoint"] == "http://127.0.0.1:2"


@pytest.mark.parametrize("backwards", [False, True])
def test_records_are_listed_page_by_page(backwards: bool) -> None:
    with Pds(recorded_repositories()) as pds:
        repository = max(pds.repositories.values(), key=lambda one: len(one.blocks))
        collection = "app.bsky.feed.post"
        base = (
            f"{pds.url}/xrpc/com.atproto.repo.listRecords?repo={repository.did}"
            f"&collection={collection}&limit=40&reverse={'false' if backwards else 'true'}"
        )
        uris, cursor = [], ""
        while True:
            (answer,) = ask(base + cursor)
            page = json.loads(answer.body)
            uris += [record["uri"] for record in page["records"]]
            if "cursor" not in page:
                break
            cursor = f"&cursor={page['cursor']}"
    paths = [path for path in repository.records() if path.startswith(f"{collection}/")]
    expected = [f"at://{repository.did}/{path}" for path in paths]
    assert uris == (expected[::-1] if backwards else expected)
    assert len(uris) > 80


def test_a_repository_that_is_not_there_is_told_as_servers_do() -> None:
    with Pds(recorded_repositories()) as pds:
        did = next(iter(pds.repositories))
        pds.repositories[did].status = "takendown"
        base = f"{pds.url}/xrpc/com.atproto.sync."
        gone, unknown, repos = ask(
            f"{base}getRepo?did={did}",
            f"{base}getRepo?did=did:plc:no",
            f"{base}listRepos?limit=500",
        )
    assert (gone.status, json.loads(gone.body)["error"]) == (400, "RepoTakendown")
    assert (unknown.status, json.loads(unknown.body)["error"]) == (400, "RepoNotFound")
    assert len(json.loads(repos.body)["repos"]) == len(pds.repositories)


async def _subscribed(labeler: Labeler, cursor: int | None, count: int) -> list[bytes]:
    url = labeler.url.replace("http", "ws") + PATH
    url += "" if cursor is None else f"?cursor={cursor}"
    async with connect(url) as line:
        frames = []
        for _ in range(count):
            frame = await line.recv()
            assert isinstance(frame, bytes)
            frames.append(frame)
        return frames


def test_a_labeler_replays_after_the_cursor_and_sends_what_is_new() -> None:
    key = LabelKey()
    with Labeler(label_frames()) as labeler:
        assert labeler.last == 80
        assert asyncio.run(_subscribed(labeler, 0, 80)) == list(label_frames())
        assert asyncio.run(_subscribed(labeler, 78, 2)) == list(label_frames()[-2:])
        label = key.make("did:plc:src", "at://did:plc:a/app.bsky.feed.post/1", "porn")
        assert labeler.publish(label) == 81
        (frame,) = asyncio.run(_subscribed(labeler, 80, 1))
        assert cbor.decode_pair(frame)[1] == {"seq": 81, "labels": [label]}
        (error,) = asyncio.run(_subscribed(labeler, 500, 1))
        assert cbor.decode_pair(error)[1]["error"] == "FutureCursor"
        assert labeler.cursors == [0, 78, 80, 500]


def test_labels_are_signed_over_their_other_fields() -> None:
    key = LabelKey()
    label = key.make("did:plc:src", "did:plc:a", "spam", neg=True)
    message = signature.unsigned(cbor.encode(label))
    public = multikey.parse(key.multikey)
    assert signature.is_valid(public, message, label["sig"])
    assert not signature.is_valid(public, message + b"x", label["sig"])


def test_a_websocket_runs_over_a_socket_that_the_outbound_client_dialled() -> None:
    tls = authority().server("labeler.example.com")
    with DnsServer() as dns, Labeler(label_frames(), tls) as labeler:
        dns.a("labeler.example.com", PUBLIC)

        async def go() -> bytes | str:
            settings = network(nameservers=dns.nameserver)
            routes = {(PUBLIC, 443): ("127.0.0.1", labeler.port)}
            async with Outbound(settings, tls=authority().trust(), routes=routes) as outbound:
                url = f"wss://labeler.example.com{PATH}?cursor=79"
                dialled = await outbound.dial(url)
                async with connect(url, sock=dialled, ssl=outbound.tls, proxy=None) as line:
                    return await line.recv()

        assert asyncio.run(go()) == label_frames()[-1]
