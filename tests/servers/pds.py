"""A server of accounts: repositories and records by XRPC, and the handles of its accounts."""

from collections.abc import Callable, Iterable
from typing import Any

from actors.atproto import cid, frames
from actors.atproto.errors import WireError
from actors.atproto.events import Account, Commit, Identity
from tests.servers.http import HttpServer, Reply, Request, json_reply, xrpc_error
from tests.servers.repository import Repository

_PIECE = 65536
_CAR = "application/vnd.ipld.car"
_GONE = {
    "takendown": "RepoTakendown",
    "suspended": "RepoSuspended",
    "deactivated": "RepoDeactivated",
    "deleted": "RepoNotFound",
}


class Pds(HttpServer):
    """Serves repositories; `add` and `feed` bring them."""

    def __init__(self, repositories: Iterable[Repository] = (), **tls: Any) -> None:
        super().__init__(**tls)
        self.repositories = {repository.did: repository for repository in repositories}
        self._methods: dict[str, Callable[[Request], Reply]] = {
            "com.atproto.sync.getRepo": self._get_repo,
            "com.atproto.sync.getRecord": self._get_proof,
            "com.atproto.sync.getLatestCommit": self._get_latest_commit,
            "com.atproto.sync.getRepoStatus": self._get_repo_status,
            "com.atproto.sync.listRepos": self._list_repos,
            "com.atproto.repo.getRecord": self._get_record,
            "com.atproto.repo.listRecords": self._list_records,
            "com.atproto.identity.resolveHandle": self._resolve_handle,
        }

    def add(self, repository: Repository) -> Repository:
        """Serve a repository."""
        self.repositories[repository.did] = repository
        return repository

    def feed(self, *frames_of_a_firehose: bytes) -> None:
        """Follow a firehose, so that this server holds what was announced there.

        What breaks the protocol is left out, as a server would never have sent it.
        """
        for frame in frames_of_a_firehose:
            try:
                event = frames.decode(frame)
            except WireError:
                continue
            if isinstance(event, Commit):
                repository = self._of(event.did)
                repository.follow(event.commit, event.blocks)
            elif isinstance(event, Identity) and event.handle is not None:
                self._of(event.did).handle = event.handle
            elif isinstance(event, Account):
                self._of(event.did).status = None if event.active else event.status

    def answer(self, request: Request) -> Reply:
        if request.path == "/.well-known/atproto-did":
            return self._well_known(request)
        method = self._methods.get(request.path.removeprefix("/xrpc/"))
        if method is None:
            return xrpc_error(501, "MethodNotImplemented", "Method Not Implemented")
        return method(request)

    def _of(self, did: str) -> Repository:
        return self.repositories.setdefault(did, Repository(did))

    def _open(self, did: str) -> Repository | Reply:
        """The repository, where it may be read."""
        repository = self.repositories.get(did)
        if repository is None or not repository.head:
            return xrpc_error(400, "RepoNotFound", f"Could not find repo for DID: {did}")
        if repository.status is not None:
            error = _GONE.get(repository.status, "RepoNotFound")
            return xrpc_error(400, error, f"Repo is not available: {did}")
        return repository

    def _get_repo(self, request: Request) -> Reply:
        found = self._open(request.query.get("did", ""))
        if isinstance(found, Reply):
            return found
        whole = found.whole()
        parts = (whole[at : at + _PIECE] for at in range(0, len(whole), _PIECE))
        return Reply(200, parts, _CAR)

    def _get_proof(self, request: Request) -> Reply:
        found = self._open(request.query.get("did", ""))
        if isinstance(found, Reply):
            return found
        return Reply(200, found.proof(_path(request)), _CAR)

    def _get_latest_commit(self, request: Request) -> Reply:
        found = self._open(request.query.get("did", ""))
        if isinstance(found, Reply):
            return found
        return json_reply({"cid": cid.to_text(found.head), "rev": found.rev})

    def _get_repo_status(self, request: Request) -> Reply:
        found = self.repositories.get(request.query.get("did", ""))
        if found is None:
            return xrpc_error(400, "RepoNotFound")
        status = {"did": found.did, "active": found.status is None}
        told = {"rev": found.rev} if found.status is None else {"status": found.status}
        return json_reply({**status, **told})

    def _list_repos(self, request: Request) -> Reply:
        dids = sorted(did for did, held in list(self.repositories.items()) if held.head)
        page, cursor = _page(dids, request, most=500)
        repos = []
        for did in page:
            held = self.repositories[did]
            entry = {"did": did, "head": cid.to_text(held.head), "rev": held.rev}
            active = held.status is None
            repos.append({**entry, "active": active, **({} if active else {"status": held.status})})
        return json_reply({"repos": repos, **cursor})

    def _get_record(self, request: Request) -> Reply:
        found = self._open(request.query.get("repo", ""))
        described = None if isinstance(found, Reply) else found.described(_path(request))
        if described is None:
            return xrpc_error(400, "RecordNotFound", "Could not locate record")
        return json_reply(described)

    def _list_records(self, request: Request) -> Reply:
        found = self._open(request.query.get("repo", ""))
        if isinstance(found, Reply):
            return found
        collection = request.query.get("collection", "")
        paths = [path for path in found.records() if path.partition("/")[0] == collection]
        newest_first = request.query.get("reverse") != "true"
        page, cursor = _page(paths, request, most=100, backwards=newest_first)
        return json_reply({"records": [found.described(path) for path in page], **cursor})

    def _resolve_handle(self, request: Request) -> Reply:
        did = self._did_of(request.query.get("handle", ""))
        if did is None:
            return xrpc_error(400, "HandleNotFound", "Unable to resolve handle")
        return json_reply({"did": did})

    def _well_known(self, request: Request) -> Reply:
        did = self._did_of(request.host)
        if did is None:
            return Reply(404, b"User not found", "text/plain")
        return Reply(200, did.encode(), "text/plain")

    def _did_of(self, handle: str) -> str | None:
        return next((did for did, held in self.repositories.items() if held.handle == handle), None)


def _path(request: Request) -> str:
    return f"{request.query.get('collection', '')}/{request.query.get('rkey', '')}"


def _page(
    keys: list[str], request: Request, most: int, *, backwards: bool = False
) -> tuple[list[str], dict[str, str]]:
    """One page of keys in order, and the cursor of the next."""
    limit = min(int(request.query.get("limit", "50")), most)
    after = request.query.get("cursor")
    if backwards:
        keys = [key for key in reversed(keys) if after is None or key < after]
    else:
        keys = [key for key in keys if after is None or key > after]
    return keys[:limit], ({"cursor": keys[limit - 1]} if len(keys) > limit else {})
