"""An account that writes what a test tells it to, as real frames."""

from typing import Any

from actors.atproto import cbor, frames
from bench.network_account import Account, Write, text_of

START = 1_735_689_600_000_000
LINK = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
TIME = "2025-01-01T00:00:00.000Z"


class Author(Account):
    """An account with a clock of its own: a second passes from one commit to the next."""

    def __init__(self, index: int, did: str | None = None) -> None:
        super().__init__(0, index, f"author{index}.test", sign=False)
        if did is not None:
            self.did = did
        self._written = 0

    def uri(self, path: str) -> str:
        """The uri of a record."""
        return f"at://{self.did}/{path}"

    def put(self, path: str, **fields: Any) -> Write:
        """A write that creates or changes a record; `$type` and `createdAt` are added."""
        record = {"$type": path.partition("/")[0], "createdAt": TIME, **fields}
        return Write("update" if self.holds(path) else "create", path, cbor.encode(record))

    def frame(self, *writes: Write) -> bytes:
        """The frame of a commit with these writes."""
        self._written += 1
        return self.commit(list(writes), self._written, START + self._written * 1_000_000)

    def creates(self, path: str, **fields: Any) -> bytes:
        """The frame of a commit that puts one record."""
        return self.frame(self.put(path, **fields))

    def deletes(self, *paths: str) -> bytes:
        """The frame of a commit that deletes records."""
        return self.frame(*(Write("delete", path, None) for path in paths))


def account_event(did: str, seq: int, status: str | None) -> bytes:
    """The frame of an #account; without a status the account is active."""
    time = text_of(START + seq * 1_000_000)
    body: dict[str, Any] = {"seq": seq, "did": did, "time": time, "active": status is None}
    return frames.encode("#account", body if status is None else {**body, "status": status})


def ref(uri: str) -> dict[str, str]:
    """A reference to a record."""
    return {"uri": uri, "cid": LINK}


def reply(parent: str, root: str | None = None) -> dict[str, Any]:
    """The `reply` of a post."""
    return {"parent": ref(parent), "root": ref(root or parent)}
