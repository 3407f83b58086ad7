"""Commits as somebody forges them, made of those that were not."""

import hashlib
from typing import Any, Final

from coincurve import PrivateKey

from actors.atproto import car, cbor, cid, frames

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def opened(frame: bytes) -> tuple[str, dict[str, Any]]:
    """The name of an event, and its body."""
    header, body = cbor.decode_pair(frame)
    name: str = header["t"]
    return name, body


def numbered(frame: bytes, seq: int) -> bytes:
    """The same event under another number."""
    name, body = opened(frame)
    return frames.encode(name, {**body, "seq": seq})


def signed_by(frame: bytes, key: PrivateKey) -> bytes:
    """The same `#commit` or `#sync`, signed by another key."""

    def sign(unsigned: dict[str, Any], _sig: bytes) -> bytes:
        digest = hashlib.sha256(cbor.encode(unsigned)).digest()
        return key.sign_recoverable(digest, hasher=None)[:64]

    return _resigned(frame, sign)


def signed_high(frame: bytes) -> bytes:
    """With the other s, which fits as well and is not allowed."""

    def sign(_unsigned: dict[str, Any], sig: bytes) -> bytes:
        high = _ORDER - int.from_bytes(sig[32:], "big")
        return sig[:32] + high.to_bytes(32, "big")

    return _resigned(frame, sign)


def after_another_tree(frame: bytes) -> bytes:
    """It says that it follows a tree that it does not follow."""
    name, body = opened(frame)
    return frames.encode(name, {**body, "prevData": body["commit"]})


def with_another_record(frame: bytes) -> bytes:
    """With one record more than was signed."""
    name, body = opened(frame)
    record = cbor.encode({"$type": "com.example.forged", "text": "forged"})
    content = car.read(body["blocks"])
    blocks = car.write(content.root, {**content.blocks, cid.compute(record): record})
    op = {"action": "create", "path": "com.example.forged/a", "cid": cid.compute(record)}
    return frames.encode(name, {**body, "ops": [*body["ops"], op], "blocks": blocks})


def _resigned(frame: bytes, sign: Any) -> bytes:
    name, body = opened(frame)
    content = car.read(body["blocks"])
    fields = cbor.decode(content.blocks[content.root])
    unsigned = {field: value for field, value in fields.items() if field != "sig"}
    block = cbor.encode({**unsigned, "sig": sign(unsigned, fields["sig"])})
    others = {other: data for other, data in content.blocks.items() if other != content.root}
    root = cid.compute(block)
    changed = {"blocks": car.write(root, {root: block, **others})}
    if name == "#commit":
        changed["commit"] = root
    return frames.encode(name, {**body, **changed})
