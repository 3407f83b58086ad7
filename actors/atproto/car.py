"""CAR files: the blocks of a commit or of a repository, each checked against its CID.

Version 1: a header with the roots, then blocks, each with its length and CID before it, in any
order and possibly twice. Split by hand and hashed, because libipld's reader takes twice as long and
does not compare a block with its CID. Source: the CARv1 specification and the atproto
specification, "Repository", section "CAR File Serialization".
"""

import hashlib
from typing import Final

import msgspec

from actors.atproto import cbor, cid
from actors.atproto.errors import Reason, WireError

# The header that every server writes for one root, in DAG-CBOR's order of keys.
_HEADER_START: Final = b"\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_HEADER_END: Final = b"\x67version\x01"
_ROOT_AT: Final = len(_HEADER_START)
_ROOT_END: Final = _ROOT_AT + cid.SIZE
_HEADER_SIZE: Final = _ROOT_END + len(_HEADER_END)
_MAX_HEADER: Final = 4096

_sha256 = hashlib.sha256


class Car(msgspec.Struct, frozen=True, gc=False):
    """The first root, and the blocks by CID (36 bytes)."""

    root: bytes
    blocks: dict[bytes, bytes]


def read(data: bytes) -> Car:
    """Split a CAR and hash every block.

    Raises WireError: BAD_CAR for broken framing, BAD_CID for a CID that the protocol does not
    allow, HASH_MISMATCH where a block is not what its CID says.
    """
    root, offset = _header(data)
    size = len(data)
    blocks: dict[bytes, bytes] = {}
    sha256 = _sha256
    while offset < size:
        length = data[offset]
        offset += 1
        if length > 127:
            length, offset = _varint(data, offset, length)
        end = offset + length
        start = offset + 36
        if end > size or start > end:
            raise WireError(Reason.BAD_CAR, f"a block of {length} bytes at byte {offset} of {size}")
        name = data[offset:start]
        block = data[start:end]
        if name[4:] != sha256(block).digest() or not name.startswith(_KINDS):
            raise _bad_block(name)
        blocks[name] = block
        offset = end
    return Car(root, blocks)


def write(root: bytes, blocks: dict[bytes, bytes]) -> bytes:
    """A CAR with one root and these blocks, in the order of the mapping."""
    parts = [_HEADER_START, root, _HEADER_END]
    for name, block in blocks.items():
        length = len(name) + len(block)
        while length > 127:
            parts.append(_BYTES[length & 127 | 128])
            length >>= 7
        parts += (_BYTES[length], name, block)
    return b"".join(parts)


_KINDS: Final = (cid.DAG_CBOR, cid.RAW)
_BYTES: Final = [bytes((value,)) for value in range(256)]


def _header(data: bytes) -> tuple[bytes, int]:
    if data.startswith(_HEADER_START) and data[_ROOT_END:_HEADER_SIZE] == _HEADER_END:
        root, offset = data[_ROOT_AT:_ROOT_END], _HEADER_SIZE
    else:
        if not data:
            raise WireError(Reason.BAD_CAR, "no bytes at all")
        length, start = _varint(data, 1, data[0])
        offset = start + length
        if length > _MAX_HEADER or offset > len(data):
            raise WireError(Reason.BAD_CAR, f"a header of {length} bytes in {len(data)}")
        header = cbor.decode(data[start:offset])
        if type(header) is not dict or header.get("version") != 1:
            raise WireError(Reason.BAD_CAR, "not a CAR of version 1")
        roots = header.get("roots")
        if type(roots) is not list or not roots:
            raise WireError(Reason.BAD_CAR, "no roots")
        root = roots[0]
    if not cid.is_record_cid(root):
        raise WireError(Reason.BAD_CAR, "the root is not the CID of a DAG-CBOR block")
    return root, offset


def _varint(data: bytes, offset: int, first: int) -> tuple[int, int]:
    """The unsigned LEB128 number whose first byte was read, and the offset after it."""
    value, shift = first & 127, 7
    byte = first
    while byte > 127:
        if offset >= len(data) or shift > 28:
            raise WireError(Reason.BAD_CAR, f"a broken length at byte {offset}")
        byte = data[offset]
        offset += 1
        value |= (byte & 127) << shift
        shift += 7
    return value, offset


def _bad_block(name: bytes) -> WireError:
    if not name.startswith(_KINDS):
        return WireError(Reason.BAD_CID, f"a block named {name.hex()}")
    return WireError(Reason.HASH_MISMATCH, f"the block of {cid.to_text(name)} is another")
