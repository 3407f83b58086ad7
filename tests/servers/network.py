"""Whole networks on loopback: the recorded one, and the synthetic one of the benchmarks."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from bench.network import Network
from tests.corpus.files import document, repositories
from tests.servers.pds import Pds
from tests.servers.repository import Repository

PDS = "http://localhost:12583"
"""Where the recorded network had the server of its accounts, and its labeler at `LABELER`."""
LABELER = "http://localhost:12587"


def recorded_repositories() -> Iterator[Repository]:
    """The repository of every recorded account at the end."""
    handles = {did: handle for handle, did in document("handles").items()}
    for data in repositories().values():
        repository = Repository.of_car(data)
        repository.handle = handles.get(repository.did)
        yield repository


def recorded_documents(**places: str) -> dict[str, dict[str, Any]]:
    """The recorded DID documents, with services at other places than they were.

    Takes `pds` and `labeler`; what is not given stays where it was.
    """
    moves = {PDS: places.get("pds", PDS), LABELER: places.get("labeler", LABELER)}
    moved = copy.deepcopy(document("did-documents"))
    for entry in moved.values():
        for service in entry["service"]:
            service["serviceEndpoint"] = moves[service["serviceEndpoint"]]
    return moved


def synthetic_documents(network: Network, pds: str) -> dict[str, dict[str, Any]]:
    """The DID documents of the synthetic network's accounts, with their server at `pds`."""
    made = dict(network.documents())
    for entry in made.values():
        entry["service"][0]["serviceEndpoint"] = pds
    return made


def pds_of(frames: Iterable[bytes]) -> Pds:
    """A server that holds what a firehose announced; not started yet."""
    server = Pds()
    server.feed(*frames)
    return server
