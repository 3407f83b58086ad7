"""An account of the synthetic network: its identity, its key, its repository, and its commits."""

import hashlib
from base64 import b32encode
from collections import deque
from typing import Any, Final, NamedTuple

import libipld
from coincurve import PrivateKey

from actors.atproto import car, cbor, cid, datetimes, frames, mst, tid

PDS: Final = "https://pds.network.test"
REMEMBERED: Final = 50
"""Records of its own that an account remembers, to delete or change them later."""

_CONSTANT_SIGNATURE: Final = b"\x01" * 64
_K256_PUBLIC: Final = b"\xe7\x01"  # the multicodec of a compressed secp256k1 key


class Write(NamedTuple):
    """One operation to be committed; a delete has no block."""

    action: str
    path: str
    block: bytes | None


class Own(NamedTuple):
    """A record that an account made. `token` says what it is about, so that it is made once."""

    collection: str
    rkey: str
    token: int | None


def did_of(seed: int, index: int) -> str:
    """The DID of the account with this index."""
    digest = hashlib.sha256(b"skyshard did %d %d" % (seed, index)).digest()
    return "did:plc:" + b32encode(digest[:15]).decode("ascii").lower()


def key_of(seed: int, index: int) -> PrivateKey:
    """The signing key of the account with this index."""
    return PrivateKey(hashlib.sha256(b"skyshard key %d %d" % (seed, index)).digest())


def document(did: str, handle: str, key: PrivateKey) -> dict[str, Any]:
    """The DID document of an account, as a directory serves it."""
    public = libipld.encode_multibase("z", _K256_PUBLIC + key.public_key.format(compressed=True))
    return {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": [f"at://{handle}"],
        "verificationMethod": [
            {
                "id": f"{did}#atproto",
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": public,
            }
        ],
        "service": [
            {
                "id": "#atproto_pds",
                "type": "AtprotoPersonalDataServer",
                "serviceEndpoint": PDS,
            }
        ],
    }


class Account:
    """A living account. Its repository is held in memory; a commit costs one path of its tree."""

    def __init__(self, seed: int, index: int, handle: str, sign: bool) -> None:
        self.index = index
        self.did = did_of(seed, index)
        self.handle = handle
        self.key = key_of(seed, index)
        self.own: deque[Own] = deque(maxlen=REMEMBERED)
        self.done: set[int] = set()
        self.records = 0
        self.active = True
        self._sign = sign
        self._clock_id = index & 1023
        self._tree = mst.Tree()
        self._data: bytes | None = None
        self._rev: str | None = None
        self._rkey: str | None = None
        self._signed = b""

    def next_rkey(self, now: int) -> str:
        """A record key for this moment, later than all before it."""
        self._rkey = tid.after(self._rkey, now, self._clock_id)
        return self._rkey

    def holds(self, path: str) -> bool:
        """Whether the repository has a record under this path."""
        return self._tree.get(path.encode()) is not None

    def commit(self, writes: list[Write], seq: int, now: int) -> bytes:
        """Apply these writes, and give the frame that announces them."""
        tree = self._tree
        ops: list[dict[str, Any]] = []
        records: dict[bytes, bytes] = {}
        for action, path, block in writes:
            key = path.encode()
            if block is None:
                former: bytes | None = tree.delete(key)
                op: dict[str, Any] = {"action": action, "path": path, "cid": None}
                self.records -= 1
            else:
                name = cid.compute(block)
                records[name] = block
                former = tree.put(key, name)
                op = {"action": action, "path": path, "cid": name}
                self.records += former is None
            if former is not None:
                op["prev"] = former
            ops.append(op)
        data, nodes = tree.seal()
        for write in writes:
            tree.proof(write.path.encode(), nodes)
        body = self._announce(data, {**nodes, **records}, now)
        body |= {"seq": seq, "ops": ops, "blobs": [], "rebase": False, "tooBig": False}
        return frames.encode("#commit", body)

    def commit_over(self, path: str, first: bytes, last: bytes, seq: int, now: int) -> bytes:
        """Create a record and change it in the same write.

        As real servers announce that: both operations without `prev`, the first record left out.
        """
        name = cid.compute(last)
        self._tree.put(path.encode(), name)
        self.records += 1
        data, nodes = self._tree.seal()
        self._tree.proof(path.encode(), nodes)
        ops = [
            {"action": "create", "path": path, "cid": cid.compute(first)},
            {"action": "update", "path": path, "cid": name},
        ]
        body = self._announce(data, {**nodes, name: last}, now)
        body |= {"seq": seq, "ops": ops, "blobs": [], "rebase": False, "tooBig": False}
        return frames.encode("#commit", body)

    def sync(self, seq: int, now: int) -> bytes:
        """The frame that announces the repository's present state."""
        name = cid.compute(self._signed)
        body = {
            "seq": seq,
            "did": self.did,
            "rev": self._rev,
            "time": text_of(now),
            "blocks": car.write(name, {name: self._signed}),
        }
        return frames.encode("#sync", body)

    def _announce(self, data: bytes, blocks: dict[bytes, bytes], now: int) -> dict[str, Any]:
        since, before = self._rev, self._data
        self._rev = rev = tid.after(since, now, self._clock_id)
        self._data = data
        unsigned = {"did": self.did, "version": 3, "data": data, "rev": rev, "prev": None}
        self._signed = cbor.encode({**unsigned, "sig": self._signature(unsigned)})
        name = cid.compute(self._signed)
        body = {
            "repo": self.did,
            "rev": rev,
            "since": since,
            "commit": name,
            "time": text_of(now),
            "blocks": car.write(name, {name: self._signed, **blocks}),
        }
        if before is not None:
            body["prevData"] = before
        return body

    def _signature(self, unsigned: dict[str, Any]) -> bytes:
        if not self._sign:
            return _CONSTANT_SIGNATURE
        digest = hashlib.sha256(cbor.encode(unsigned)).digest()
        # 64 bytes of r and s, s low, and one byte for recovery that the protocol does not use.
        return self.key.sign_recoverable(digest, hasher=None)[:64]


def text_of(now: int) -> str:
    """The text of a moment in microseconds."""
    return datetimes.to_text(datetimes.from_microseconds(now))
