"""A look at a frame that costs next to nothing: what it is, its `seq`, and whose it is.

Enough to route a frame unparsed to the shard of its DID. A frame of usual size goes through
libipld, which is faster than anything that Python could skip (0.7 us for 4 KB); one that libipld
refuses, or a large one, is walked by hand without making objects of it, so that a single odd value
(or map keys out of order) costs that one event, in its shard, and not the connection.
"""

from typing import Any, Final

import libipld
import msgspec

from actors.atproto import cbor
from actors.atproto.errors import Reason, WireError, shorten
from actors.atproto.events import Kind

MAX_FRAME: Final = 5 * 1024 * 1024
MAX_SEQ: Final = (1 << 53) - 1
MAX_KEYS: Final = 256

KINDS: Final[dict[object, Kind]] = {
    "#commit": Kind.COMMIT,
    "#sync": Kind.SYNC,
    "#identity": Kind.IDENTITY,
    "#account": Kind.ACCOUNT,
    "#info": Kind.INFO,
}
_WANTED: Final = frozenset(
    (b"t", b"op", b"seq", b"repo", b"did", b"time", b"name", b"error", b"message")
)


class Peek(msgspec.Struct, frozen=True, gc=False):
    """What a frame is about.

    `seq` and `did` are there for commit, sync, identity and account; `seq` of any other event where
    it carries one. `time` is the text that the frame holds, unchecked. `name` is the name of an
    `#info` or of an error, `message` its text.
    """

    kind: Kind
    seq: int | None = None
    did: str | None = None
    time: str | None = None
    name: str | None = None
    message: str | None = None


def peek(frame: bytes) -> Peek:
    """Look at a frame. Raises WireError where it cannot be told what the frame is and whose.

    That is a fault of the upstream; what is wrong inside an event is found by `frames.decode`.
    """
    size = len(frame)
    if size <= cbor.SCAN_ABOVE:
        try:
            header, body = libipld.decode_dag_cbor_multi(frame)
        except (ValueError, RecursionError):
            header, body = _walk(frame)
    elif size <= MAX_FRAME:
        header, body = _walk(frame)
    else:
        raise WireError(Reason.FRAME_TOO_LARGE, f"{size} bytes, {MAX_FRAME} are allowed")
    if type(header) is not dict or type(body) is not dict:
        raise WireError(Reason.BAD_FRAME, "header and body must both be maps")
    op, name = header.get("op"), header.get("t")
    if type(op) is not int or op != 1 or type(name) is not str:
        return _peek_other(header, body)
    kind = KINDS.get(name)
    if kind is None or kind is Kind.INFO:
        return _peek_other(header, body)
    seq = body.get("seq")
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        raise WireError(Reason.BAD_SEQ, f"{kind} with seq {shorten(seq)}")
    did = body.get("repo" if kind is Kind.COMMIT else "did")
    if type(did) is not str:
        raise WireError(Reason.BAD_DID, f"{kind} {seq} does not say whose it is")
    time = body.get("time")
    return Peek(kind, seq, did, time if type(time) is str else None)


def _peek_other(header: dict[str, Any], body: dict[str, Any]) -> Peek:
    op = header.get("op")
    if type(op) is not int:
        raise WireError(Reason.BAD_FRAME, f"header with op {shorten(op)}")
    if op == -1:
        return Peek(Kind.ERROR, name=_text(body.get("error")), message=_text(body.get("message")))
    kind = header.get("t")
    if type(kind) is not str:
        if op == 1:
            raise WireError(Reason.BAD_FRAME, f"header with t {shorten(kind)}")
        return Peek(Kind.OTHER)
    if op == 1 and kind == "#info":
        return Peek(Kind.INFO, name=_text(body.get("name")), message=_text(body.get("message")))
    seq = body.get("seq")
    return Peek(Kind.OTHER, seq if type(seq) is int and 0 <= seq <= MAX_SEQ else None)


def _text(value: object) -> str | None:
    return value if type(value) is str else None


def _walk(frame: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    header: dict[str, Any] = {}
    body: dict[str, Any] = {}
    offset = _read_map(frame, 0, header)
    try:
        offset = _read_map(frame, offset, body)
    except WireError as error:
        if error.reason is not Reason.TOO_MANY_ITEMS or "seq" not in body:
            raise
        # Its number and its owner come before its lists: it is one account's bad event, and no
        # reason to leave the upstream.
        return header, body
    if offset != len(frame):
        raise WireError(Reason.BAD_FRAME, f"{len(frame) - offset} bytes after the body")
    return header, body


def _read_map(data: bytes, offset: int, fields: dict[str, Any]) -> int:
    """Take the fields that a peek needs from the map at `offset`; returns the offset after it."""
    major, count, offset = cbor.head(data, offset)
    if major != cbor.MAP:
        raise WireError(Reason.BAD_FRAME, "header and body must both be maps")
    if count > MAX_KEYS:
        raise WireError(Reason.TOO_MANY_ITEMS, f"a map of {count} fields")
    left = cbor.MAX_ITEMS
    for _ in range(count):
        major, argument, offset = cbor.head(data, offset)
        key = data[offset : offset + argument] if major == cbor.TEXT else b""
        if major != cbor.TEXT or len(key) != argument:
            raise WireError(Reason.BAD_FRAME, "a map key is not a whole text string")
        offset += argument
        start = offset
        offset, items = cbor.walk(data, start, left)
        left -= items
        if key not in _WANTED:
            continue
        major, argument, content = cbor.head(data, start)
        if major == cbor.TEXT:
            try:
                fields[key.decode()] = data[content:offset].decode()
            except UnicodeDecodeError:
                raise WireError(Reason.INVALID_UTF8, f"field {key.decode()}") from None
        elif major == cbor.UINT:
            fields[key.decode()] = argument
        elif major == cbor.NINT:
            fields[key.decode()] = -1 - argument
    return offset
