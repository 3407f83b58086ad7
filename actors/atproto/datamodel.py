"""Records: DAG-CBOR blocks to plain JSON values, checked against the data model while converting.

Links become `{"$link": "bafy..."}`, byte strings `{"$bytes": "..."}` (base64 without padding), as
in the JSON form of the protocol, and NUL characters, which PostgreSQL refuses, are taken out of
strings and keys. Source: the atproto specification, "Data Model".
"""

from base64 import b64encode
from typing import Any, Final

from actors.atproto import cbor, cid
from actors.atproto.commit import MAX_RECORD
from actors.atproto.errors import Reason, WireError

MAX_DEPTH: Final = 32
MAX_KEY: Final = 8192
MAX_INTEGER: Final = (1 << 53) - 1


def to_data(block: bytes) -> tuple[dict[str, Any], bool]:
    """The record in a block, and whether anything had to be taken out of it (NUL characters).

    Raises WireError: RECORD_TOO_LARGE, BAD_CBOR, INVALID_UTF8, TOO_MANY_ITEMS, NOT_A_MAP,
    MISSING_TYPE, FLOAT, INTEGER_TOO_LARGE, TOO_DEEP (32 levels, the record being the first),
    KEY_TOO_LONG.
    """
    if len(block) > MAX_RECORD:
        raise WireError(Reason.RECORD_TOO_LARGE, f"{len(block)} bytes, {MAX_RECORD} are allowed")
    record = cbor.decode(block)
    if type(record) is not dict:
        raise WireError(Reason.NOT_A_MAP, f"a record must be a map, not {type(record).__name__}")
    kind = record.get("$type")
    if type(kind) is not str or not kind:
        raise WireError(Reason.MISSING_TYPE, "a record without $type")
    # A block without a zero byte holds no NUL; most records are spared the look into each string.
    walk = _Walk(block, b"\0" in block, len(block) > MAX_KEY)
    walk.map(record, 1)
    return record, walk.sanitised


class _Walk:
    """One pass over a freshly decoded record, which it changes in place."""

    __slots__ = ("block", "check_keys", "links", "nul", "sanitised")

    def __init__(self, block: bytes, nul: bool, check_keys: bool) -> None:
        self.block = block
        self.nul = nul
        self.check_keys = check_keys
        self.links: set[bytes] | None = None
        self.sanitised = False

    def map(self, value: dict[str, Any], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise WireError(Reason.TOO_DEEP, f"more than {MAX_DEPTH} levels")
        nul = self.nul
        if nul or self.check_keys:
            self._keys(value)
        for key, item in value.items():
            kind = type(item)
            if kind is str:
                if nul and "\0" in item:
                    value[key] = self._clean(item)
            elif kind is dict:
                self.map(item, depth + 1)
            elif kind is list:
                self.list(item, depth + 1)
            elif kind is int:
                if not -MAX_INTEGER <= item <= MAX_INTEGER:
                    raise _too_large(item)
            elif kind is bytes:
                value[key] = self._bytes(item)
            elif kind is float:
                raise WireError(Reason.FLOAT, f"{key[:80]} is the float {item}")

    def list(self, value: list[Any], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise WireError(Reason.TOO_DEEP, f"more than {MAX_DEPTH} levels")
        nul = self.nul
        for index, item in enumerate(value):
            kind = type(item)
            if kind is str:
                if nul and "\0" in item:
                    value[index] = self._clean(item)
            elif kind is dict:
                self.map(item, depth + 1)
            elif kind is list:
                self.list(item, depth + 1)
            elif kind is int:
                if not -MAX_INTEGER <= item <= MAX_INTEGER:
                    raise _too_large(item)
            elif kind is bytes:
                value[index] = self._bytes(item)
            elif kind is float:
                raise WireError(Reason.FLOAT, f"a list holds the float {item}")

    def _keys(self, value: dict[str, Any]) -> None:
        dirty = False
        for key in value:
            # Characters are at most four bytes each, so short keys need no encoding to be measured.
            if len(key) > MAX_KEY // 4 and len(key.encode()) > MAX_KEY:
                raise WireError(Reason.KEY_TOO_LONG, f"a key of {len(key)} characters")
            dirty = dirty or "\0" in key
        if dirty:
            # Where a cleaned key meets one that was there before, the one that came clean stays.
            clean = {self._clean(key): item for key, item in value.items() if "\0" in key}
            clean |= {key: item for key, item in value.items() if "\0" not in key}
            value.clear()
            value.update(clean)

    def _clean(self, text: str) -> str:
        self.sanitised = True
        return text.replace("\0", "")

    def _bytes(self, item: bytes) -> dict[str, str]:
        # libipld gives links as plain bytes. Where a record holds the same 36 bytes as a link and
        # as a byte string, both are taken as links.
        links = self.links
        if links is None:
            links = self.links = cbor.links(self.block)
        if item in links:
            if not cid.is_cid(item):
                raise WireError(Reason.BAD_CID, f"a link to {item.hex()[:160]}")
            return {"$link": cid.to_text(item)}
        return {"$bytes": b64encode(item).decode("ascii").rstrip("=")}


def _too_large(value: int) -> WireError:
    return WireError(Reason.INTEGER_TOO_LARGE, f"{value} does not fit in 53 bits")
