"""Bytes and text to values, for the reference indexer: written for plainness, not for speed.

Nothing here is shared with the engine, so that a mistake of the engine's decoder shows: the
engine's cannot tell a link from a byte string, this one reads the tag.
"""

import base64
import hashlib
import re
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the tables hold naive times in UTC
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
MAX_RECURSION = 400
MAX_RECORD_BYTES = 1_000_000
MAX_KEY_BYTES = 2_000
MAX_MAP_KEY_BYTES = 8_192
CID_STARTS = (b"\x01\x71\x12\x20", b"\x01\x55\x12\x20")

TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


class Dropped(Exception):
    """Input that is counted and stepped over."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Link:
    """A CID where a record links to it (tag 42 of DAG-CBOR)."""

    cid: bytes


class Uri(NamedTuple):
    """The parts of an at-uri that names a record."""

    did: str
    collection: str
    rkey: str


def is_cid(value: object) -> bool:
    """Whether `value` is a CID of SHA-256, of DAG-CBOR or raw bytes."""
    return isinstance(value, bytes) and len(value) == 36 and value[:4] in CID_STARTS


def cid_text(cid: bytes) -> str:
    """The text form of a CID: multibase base32, lower case, no padding."""
    return "b" + base64.b32encode(cid).decode().rstrip("=").lower()


# --- DAG-CBOR ------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Dropped("bad_cbor")
        self.at += count
        return self.data[self.at - count : self.at]

    def item(self, depth: int) -> Any:
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if major == 7:
            return self.simple(low)
        if low < 24:
            argument = low
        elif low <= 27:
            argument = int.from_bytes(self.take(1 << (low - 24)), "big")
        else:
            raise Dropped("bad_cbor")
        if major == 0 or major == 1:
            return argument if major == 0 else -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            try:
                return self.take(argument).decode("utf-8")
            except UnicodeDecodeError:
                raise Dropped("invalid_utf8") from None
        if major in (4, 5) and depth >= MAX_RECURSION:
            raise Dropped("too_deep")
        if major == 4:
            return [self.item(depth + 1) for _ in range(argument)]
        if major == 5:
            return self.mapping(argument, depth + 1)
        return self.link(argument)

    def simple(self, low: int) -> Any:
        if low in (20, 21, 22):
            return {20: False, 21: True, 22: None}[low]
        if low == 27:
            (number,) = struct.unpack(">d", self.take(8))
            return number
        raise Dropped("bad_cbor")

    def mapping(self, size: int, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for _ in range(size):
            key = self.item(depth)
            if not isinstance(key, str):
                raise Dropped("bad_cbor")
            result[key] = self.item(depth)
        return result

    def link(self, tag: int) -> Link:
        content = self.item(0)
        if tag != 42 or not isinstance(content, bytes) or content[:1] != b"\0":
            raise Dropped("bad_cbor")
        return Link(content[1:])


def decode_record(block: bytes) -> dict[str, Any]:
    """A record by the rules of the data model, in its JSON form. Raises Dropped."""
    if len(block) > MAX_RECORD_BYTES:
        raise Dropped("record_too_large")
    reader = _Reader(block)
    value = reader.item(0)
    if reader.at != len(block):
        raise Dropped("bad_cbor")
    if not isinstance(value, dict):
        raise Dropped("not_a_map")
    if not isinstance(value.get("$type"), str):
        raise Dropped("type_mismatch")
    _check_limits(value, 1)
    cleaned = clean(value)
    assert isinstance(cleaned, dict)
    return cleaned


def _check_limits(value: Any, level: int) -> None:
    """Nesting counts containers: the record itself is the first of at most 32. Raises Dropped."""
    if isinstance(value, float):
        raise Dropped("float")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Dropped("integer_too_large")
    if isinstance(value, Link) and not is_cid(value.cid):
        raise Dropped("bad_cid")
    if isinstance(value, dict | list) and level > MAX_DEPTH:
        raise Dropped("too_deep")
    if isinstance(value, dict):
        if any(len(key.encode()) > MAX_MAP_KEY_BYTES for key in value):
            raise Dropped("key_too_long")
        for element in value.values():
            _check_limits(element, level + 1)
    if isinstance(value, list):
        for element in value:
            _check_limits(element, level + 1)


def clean(value: Any) -> Any:
    """The JSON form of a decoded value, without the NUL characters that PostgreSQL refuses."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, Link):
        return {"$link": cid_text(value.cid)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
    if isinstance(value, list):
        return [clean(element) for element in value]
    if isinstance(value, dict):
        # Where two keys become one, the one that needed no cleaning stays.
        order = sorted(value.items(), key=lambda item: "\0" not in item[0])
        return {clean(key): clean(element) for key, element in order}
    return value


# --- CAR -----------------------------------------------------------------------------------------


def split_car(data: bytes) -> dict[bytes, bytes]:
    """Blocks of a CAR (version 1) by CID, each checked against its hash. Raises Dropped."""
    blocks: dict[bytes, bytes] = {}
    at = 0
    header = True
    while at < len(data):
        size, at = read_varint(data, at)
        section = data[at : at + size]
        if len(section) != size:
            raise Dropped("bad_car")
        at += size
        if header:
            header = False
            continue
        cid, block = section[:36], section[36:]
        if not is_cid(cid):
            raise Dropped("bad_cid")
        if hashlib.sha256(block).digest() != cid[4:]:
            raise Dropped("hash_mismatch")
        blocks[cid] = block
    if header:
        raise Dropped("bad_car")
    return blocks


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number and the offset after it. Raises Dropped."""
    value = 0
    for index in range(10):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, at + index + 1
    raise Dropped("bad_car")


# --- identifiers and times -----------------------------------------------------------------------


def is_tid(text: object) -> bool:
    """Whether `text` is a timestamp identifier."""
    if not isinstance(text, str) or len(text) != 13 or text[0] not in TID_ALPHABET[:16]:
        return False
    return all(letter in TID_ALPHABET for letter in text)


def tid_time(rkey: str) -> datetime:
    """The moment that a record key names, or 1970 where it is no TID."""
    if not is_tid(rkey):
        return EPOCH
    number = 0
    for letter in rkey:
        number = number * 32 + TID_ALPHABET.index(letter)
    return EPOCH + timedelta(microseconds=number >> 10)


def is_did(text: object) -> bool:
    """Whether `text` has the syntax of a DID."""
    if not isinstance(text, str) or len(text) > 2048:
        return False
    return re.fullmatch(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]", text) is not None


def split_path(path: str) -> tuple[str, str] | None:
    """Collection and record key, or None where the path of a record has another form."""
    collection, _, rkey = path.partition("/")
    labels = collection.split(".")
    well_formed = (
        len(labels) >= 3
        and len(collection) <= 317
        and len(".".join(labels[:-1])) <= 253
        and all(re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?", x) for x in labels)
        and collection[0].isalpha()
        and re.fullmatch(r"[a-zA-Z][a-zA-Z0-9]{0,62}", labels[-1])
        and re.fullmatch(r"[A-Za-z0-9._:~-]{1,512}", rkey)
        and rkey not in (".", "..")
    )
    return (collection, rkey) if well_formed else None


def parse_uri(text: object) -> Uri | None:
    """The parts of the uri of a record whose authority is a DID, or None."""
    if not isinstance(text, str) or not text.startswith("at://") or len(text) > 8192:
        return None
    did, _, path = text[5:].partition("/")
    parts = split_path(path)
    if parts is None or not is_did(did):
        return None
    return Uri(did, *parts)


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_time(text: object) -> datetime | None:
    """An RFC 3339 time as naive UTC, cut to microseconds; None where it names no moment."""
    match = _TIME.fullmatch(text) if isinstance(text, str) and len(text) <= 64 else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[index]) for index in range(1, 7))
    leap = second == 60
    micros = 0 if leap else int((match[7] or "")[:6].ljust(6, "0"))
    try:
        moment = datetime(year, month, day, hour, minute, 59 if leap else second, micros)  # noqa: DTZ001 - see EPOCH
        if leap:
            moment += timedelta(seconds=1)
        if match[8] not in "Zz":
            hours, minutes = int(match[8][1:3]), int(match[8][4:6])
            if hours > 23 or minutes > 59:
                return None
            offset = timedelta(hours=hours, minutes=minutes)
            moment += offset if match[8][0] == "-" else -offset
    except (ValueError, OverflowError):
        return None
    return moment


def record_time(value: object, commit_time: datetime) -> datetime:
    """A record's time: its own, unless that is missing, invalid or over five minutes ahead."""
    moment = parse_time(value)
    if moment is None or moment > commit_time + timedelta(minutes=5):
        return commit_time
    return moment


def read_capture(data: bytes) -> list[bytes]:
    """The messages of a capture: each preceded by its length, 32 bits, big-endian."""
    frames = []
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        frames.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return frames
