"""The skeleton of a commit: its frame without the records, for what may be kept of a commit whose
author forbids the rest. It says which keys were written and deleted, and can be verified as before.
"""

from typing import Any, Final

from actors.atproto import car, cbor, cid, frames
from actors.atproto.errors import WireError

_FIELDS: Final = ("seq", "repo", "rev", "since", "prevData", "commit", "time", "tooBig")
_OF_AN_OPERATION: Final = ("action", "path", "cid", "prev")
_NODE: Final = frozenset(("l", "e"))


def of_commit(frame: bytes) -> bytes:
    """Return the frame of a `#commit`, as it was decoded without fault, with nothing in its blocks
    but the signed object and the nodes of the tree, and no field that has no meaning here.
    """
    _header, body = cbor.decode_pair(frame)
    content = car.read(body["blocks"])
    kept = {
        name: block
        for name, block in content.blocks.items()
        if name == content.root or _is_node(name, block)
    }
    operations = [_only(op, _OF_AN_OPERATION) for op in body["ops"]]
    blocks = car.write(content.root, kept)
    return frames.encode("#commit", {**_only(body, _FIELDS), "ops": operations, "blocks": blocks})


def _is_node(name: bytes, block: bytes) -> bool:
    if not cid.is_record_cid(name):
        return False
    try:
        fields = cbor.decode(block)
    except WireError:
        return False
    return type(fields) is dict and fields.keys() == _NODE


def _only(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}
