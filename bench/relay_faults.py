"""What a relay can be told to do wrong, and the frames it does it with."""

from typing import Final, Literal

import libipld
import msgspec

Garbage = Literal["broken_cbor", "text", "unknown_t", "unknown_op", "oversized"]
Disconnect = Literal["close", "reset", "mid_frame", "refuse"]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that goes wrong just before the frame with the index ``at`` is sent.

    ``close`` says goodbye (1001), ``reset`` is a TCP reset, ``mid_frame`` ends within that frame,
    ``refuse`` is a reset after which nobody listens for ``seconds``; ``stall`` is silence on an
    open connection for ``seconds`` (0: until the client leaves); the others put a frame that nobody
    can use before it (``oversized``: of ``size`` bytes). It fires ``times`` times, on whichever
    connection gets there, then lets the frame pass.
    """

    kind: Garbage | Disconnect | Literal["stall"]
    at: int
    times: int = 1
    seconds: float = 0.0
    size: int = 5 * 1024 * 1024 + 1


def _frame(header: dict[str, object], body: dict[str, object]) -> bytes:
    return libipld.encode_dag_cbor(header) + libipld.encode_dag_cbor(body)


OUTDATED_CURSOR: Final = _frame(
    {"op": 1, "t": "#info"},
    {"name": "OutdatedCursor", "message": "the oldest event held is newer than the cursor"},
)
FUTURE_CURSOR: Final = _frame(
    {"op": -1}, {"error": "FutureCursor", "message": "the cursor is ahead of the newest event"}
)

_TEXT: Final = 0x81
_BINARY: Final = 0x82


def websocket_header(size: int, first: int = _BINARY) -> bytes:
    """The header of an unmasked websocket frame of ``size`` bytes (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def garbage(fault: Fault) -> bytes:
    """The whole websocket frame that a garbage fault sends."""
    first = _BINARY
    match fault.kind:
        case "broken_cbor":
            body = b"\xa2bop\x01at"
        case "text":
            first, body = _TEXT, b"hello"
        case "unknown_t":
            body = _frame({"op": 1, "t": "#future"}, {"note": "an event of a later version"})
        case "unknown_op":
            body = _frame({"op": 7, "t": "#commit"}, {"note": "an operation of a later version"})
        case "oversized":
            body = bytes(fault.size)
        case _:
            raise ValueError(f"{fault.kind} sends no frame")
    return websocket_header(len(body), first) + body
