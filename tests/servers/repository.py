"""A repository as a server holds it: from its CAR, or from the frames that announced it."""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Self

from actors.atproto import car, cbor, cid, mst
from actors.atproto.datamodel import to_data
from actors.atproto.errors import WireError


class Repository:
    """The blocks of one account; `handle`, `status` and the like are what its server knows of it.

    `status` is None for an active account.
    """

    def __init__(self, did: str, handle: str | None = None) -> None:
        self.did = did
        self.handle = handle
        self.status: str | None = None
        self.head = b""
        self.blocks: dict[bytes, bytes] = {}

    @classmethod
    def of_car(cls, data: bytes) -> Self:
        """The repository in a CAR."""
        content = car.read(data)
        made = cls(cbor.decode(content.blocks[content.root])["did"])
        made.head, made.blocks = content.root, content.blocks
        return made

    def follow(self, name: bytes, blocks: bytes) -> None:
        """Take the commit of a `#commit` and its blocks."""
        self.blocks |= car.read(blocks).blocks
        self.head = name

    @property
    def signed(self) -> dict[str, Any]:
        """The commit object."""
        decoded: dict[str, Any] = cbor.decode(self.blocks[self.head])
        return decoded

    @property
    def rev(self) -> str:
        """The revision of the commit."""
        rev: str = self.signed["rev"]
        return rev

    def tree(self) -> mst.Tree:
        """The tree of the commit."""
        return mst.Tree.load(self.signed["data"], self.blocks)

    def records(self) -> dict[str, bytes]:
        """The CID of each record, by path, in order."""
        return {key.decode(): name for key, name in self.tree().items()}

    def whole(self) -> bytes:
        """The CAR of everything that the commit leads to, the commit first."""
        names = [self.head, *self._below(self.signed["data"])]
        return car.write(self.head, {name: self.blocks[name] for name in names})

    def proof(self, path: str) -> bytes:
        """The CAR that shows a record in the repository, or that it is not there."""
        tree, key = self.tree(), path.encode()
        shown = {self.head: self.blocks[self.head]}
        tree.proof(key, shown)
        name = tree.get(key)
        if name is not None:
            shown[name] = self.blocks[name]
        return car.write(self.head, shown)

    def value(self, name: bytes) -> dict[str, Any]:
        """A record as JSON has it."""
        block = self.blocks[name]
        try:
            return to_data(block)[0]
        except WireError:
            # Servers hand out what breaks our rules as well.
            value: dict[str, Any] = json.loads(json.dumps(cbor.decode(block), default=_bytes))
            return value

    def described(self, path: str) -> dict[str, Any] | None:
        """A record with its uri and CID, as the XRPC methods give it."""
        name = self.tree().get(path.encode())
        if name is None:
            return None
        uri = f"at://{self.did}/{path}"
        return {"uri": uri, "cid": cid.to_text(name), "value": self.value(name)}

    def _below(self, name: bytes) -> Iterator[bytes]:
        """Nodes before what they hold, in the order of the keys."""
        yield name
        node = mst.decode_node(self.blocks[name])
        for index, tree in enumerate(node.trees):
            if isinstance(tree, bytes):
                yield from self._below(tree)
            if index < len(node.values):
                yield node.values[index]


def _bytes(value: object) -> object:
    assert isinstance(value, bytes)
    return {"$bytes": b64encode(value).decode().rstrip("=")}
