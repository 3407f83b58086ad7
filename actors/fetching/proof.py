"""A record with the proof that it is in a repository, or that it is not. Pure."""

from typing import NamedTuple

from actors.atproto import car, cid, commit
from actors.atproto.errors import Reason, WireError
from actors.atproto.mst import Tree
from actors.atproto.multikey import PublicKey
from actors.fetching import signed as commits


class Proven(NamedTuple):
    """A record and its CID, at a revision; both None where the repository has no such record."""

    rev: str
    cid: bytes | None
    record: bytes | None


def read(data: bytes, did: str, path: str, now: float, key: PublicKey | None) -> Proven:
    """What a CAR shows of a path.

    See `signed.read` for the arguments and errors. Raises WireError besides: BAD_CAR, BAD_CID,
    HASH_MISMATCH, BAD_MST, MST_BLOCK_MISSING (it shows nothing), RECORD_MISSING, RECORD_TOO_LARGE.
    """
    content = car.read(data)
    signed = commits.read(content.root, content.blocks.get(content.root), did, now, key)
    name = Tree.load(signed.data, content.blocks).get(path.encode())
    if name is None:
        return Proven(signed.rev, None, None)
    record = content.blocks.get(name)
    if record is None:
        raise WireError(Reason.RECORD_MISSING, f"no block of {cid.to_text(name)}")
    if len(record) > commit.MAX_RECORD:
        raise WireError(Reason.RECORD_TOO_LARGE, f"a record of {len(record)} bytes")
    return Proven(signed.rev, name, record)
