"""Content identifiers: in the AT Protocol always version 1, SHA-256, and the codec dag-cbor or raw.

A CID is kept as its 36 bytes; as text it is multibase base32 with a leading `b`. Source: the
atproto specification, "Data Model", section "Link and CID Formats".
"""

import hashlib
from typing import Final

import libipld

from actors.atproto.errors import Reason, WireError, shorten

SIZE: Final = 36
DAG_CBOR: Final = b"\x01\x71\x12\x20"
RAW: Final = b"\x01\x55\x12\x20"
TEXT_SIZE: Final = 59

_sha256 = hashlib.sha256


def compute(block: bytes) -> bytes:
    """The CID of a DAG-CBOR block."""
    return DAG_CBOR + _sha256(block).digest()


def is_cid(value: object) -> bool:
    """Whether `value` is the 36 bytes of a CID of one of the two allowed kinds."""
    return type(value) is bytes and len(value) == SIZE and value[:4] in (DAG_CBOR, RAW)


def is_record_cid(value: object) -> bool:
    """Whether `value` is the 36 bytes of a CID of a DAG-CBOR block."""
    return type(value) is bytes and len(value) == SIZE and value.startswith(DAG_CBOR)


def to_text(cid: bytes) -> str:
    """The text form of 36 bytes (`bafyrei...` or `bafkrei...`)."""
    return libipld.encode_multibase("b", cid)


def from_text(text: str) -> bytes:
    """The 36 bytes of a CID's text form. Raises WireError(BAD_CID)."""
    if len(text) == TEXT_SIZE and text.startswith(("bafy", "bafk")):
        try:
            cid = libipld.decode_multibase(text)[1]
        except ValueError:
            cid = b""
        # The last character holds spare bits: only one spelling of a CID is right.
        if is_cid(cid) and to_text(cid) == text:
            return cid
    raise WireError(Reason.BAD_CID, f"not a CIDv1 of SHA-256 in base32: {shorten(text)}")
