"""The checks of an event's envelope and blocks, for the reference indexer."""

from datetime import datetime
from typing import Any

import libipld

from tests.reference_decode import (
    Dropped,
    is_cid,
    is_did,
    is_tid,
    parse_time,
    read_varint,
    split_car,
    split_path,
)

MAX_BLOCKS_BYTES = 2_000_000
MAX_SYNC_BYTES = 10_000
MAX_OPS = 200


def envelope(body: dict[str, Any], who: str) -> tuple[str, str, datetime]:
    """DID, rev and time of an event. Raises Dropped."""
    seq, did, rev = body.get("seq"), body.get(who), body.get("rev")
    time = parse_time(body.get("time"))
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq < 2**53:
        raise Dropped("bad_seq")
    if not isinstance(did, str) or not is_did(did):
        raise Dropped("bad_did")
    if not isinstance(rev, str) or not is_tid(rev):
        raise Dropped("bad_rev")
    if time is None:
        raise Dropped("bad_time")
    return did, rev, time


Operation = tuple[str, str, bytes | None, bytes | None]


def operations_of(raw: Any) -> list[Operation]:
    """Action, path, CID and previous CID of each operation of a commit. Raises Dropped."""
    if not isinstance(raw, list):
        raise Dropped("wrong_type")
    if len(raw) > MAX_OPS:
        raise Dropped("too_many_ops")
    result: list[Operation] = []
    for op in raw:
        if not isinstance(op, dict):
            raise Dropped("bad_op")
        action, path = op.get("action"), op.get("path")
        cid, prev = op.get("cid"), op.get("prev")
        if action not in ("create", "update", "delete"):
            raise Dropped("bad_op")
        if not isinstance(path, str) or split_path(path) is None:
            raise Dropped("bad_path")
        if (cid is not None) if action == "delete" else not is_cid(cid):
            raise Dropped("bad_op")
        if prev is not None and (action == "create" or not is_cid(prev)):
            raise Dropped("bad_op")
        result.append((action, path, cid, prev))
    for index, (action, path, _, prev) in enumerate(result):
        earlier = [op for op in result[:index] if op[1] == path]
        if earlier:
            stands = earlier[-1][0] != "delete"
            wrong_prev = prev is not None and prev != earlier[-1][2]
            if wrong_prev or (action == "create") == stands:
                raise Dropped("ops_do_not_chain")
    return result


def record_block(blocks: dict[bytes, bytes], cid: bytes) -> bytes:
    if cid not in blocks:
        raise Dropped("record_missing")
    return blocks[cid]


def blocks_of(raw: Any, limit: int) -> tuple[bytes, dict[bytes, bytes]]:
    """The first root of a CAR and its blocks. Raises Dropped."""
    if not isinstance(raw, bytes):
        raise Dropped("wrong_type")
    if len(raw) > limit:
        raise Dropped("blocks_too_large")
    size, start = read_varint(raw, 0)
    try:
        root = libipld.decode_dag_cbor(raw[start : start + size])["roots"][0]
    except (ValueError, LookupError, TypeError):
        raise Dropped("bad_car") from None
    if not isinstance(root, bytes):
        raise Dropped("bad_car")
    return root, split_car(raw)


def commit_object(blocks: dict[bytes, bytes], cid: bytes, did: str, rev: str) -> bytes:
    """The root of the repository's tree, from the commit object. Raises Dropped."""
    if cid not in blocks:
        raise Dropped("commit_missing")
    try:
        commit = libipld.decode_dag_cbor(blocks[cid])
    except (ValueError, RecursionError):
        raise Dropped("bad_commit") from None
    if not isinstance(commit, dict) or commit.get("version") != 3:
        raise Dropped("bad_commit")
    data, sig = commit.get("data"), commit.get("sig")
    if not isinstance(data, bytes) or not is_cid(data):
        raise Dropped("bad_commit")
    if not isinstance(sig, bytes) or len(sig) != 64 or "prev" not in commit:
        raise Dropped("bad_commit")
    if commit.get("did") != did or commit.get("rev") != rev:
        raise Dropped("commit_mismatch")
    return data
