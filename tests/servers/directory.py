"""A directory of did:plc, and the sites of did:web and of handles."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.servers.http import HttpServer, Reply, Request, json_reply

Document = Mapping[str, Any]


class PlcDirectory(HttpServer):
    """Serves DID documents: `GET /{did}`; 404 for an unknown one, 410 for a tombstone."""

    def __init__(self, documents: Iterable[tuple[str, Document]] = (), **tls: Any) -> None:
        super().__init__(**tls)
        self.documents = dict(documents)
        self.tombstones: set[str] = set()

    def answer(self, request: Request) -> Reply:
        did = request.path.removeprefix("/")
        if request.path == "/_health":
            return json_reply({"version": "test"})
        if not did.startswith("did:plc:"):
            return json_reply({"message": f"Invalid DID: {did}"}, 400)
        if did in self.tombstones:
            return json_reply({"message": f"DID not available: {did}"}, 410)
        if did not in self.documents:
            return json_reply({"message": f"DID not registered: {did}"}, 404)
        return Reply(200, json_reply(self.documents[did]).body, "application/did+ld+json")


class Sites(HttpServer):
    """Many hosts in one: documents of did:web and DIDs of handles, by the host asked for."""

    def __init__(self, **tls: Any) -> None:
        super().__init__(**tls)
        self.documents: dict[str, Document] = {}
        self.handles: dict[str, str] = {}

    def answer(self, request: Request) -> Reply:
        if request.path == "/.well-known/did.json" and request.host in self.documents:
            return json_reply(self.documents[request.host])
        if request.path == "/.well-known/atproto-did" and request.host in self.handles:
            return Reply(200, self.handles[request.host].encode(), "text/plain")
        return Reply(404, b"not here", "text/plain")
