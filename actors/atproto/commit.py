"""Opening a commit: its blocks, its signed object, and what it does to each record.

Checked here is what needs no state and no key: hashes, and the signed object against the message.
The signature and the tree (whether the operations lead from `prevData` to `data`) need the identity
and are checked apart from this; all they need (`block`, `sig`, `blocks`, `ops`) is in the result.
Source: the atproto specification, "Repository", sections "Commit Objects" and "Diffs".
"""

from typing import Final

import msgspec

from actors.atproto import car, cbor, cid
from actors.atproto.errors import Reason, WireError, shorten
from actors.atproto.events import Action, Commit, Op, Sync

VERSION: Final = 3
SIGNATURE_SIZE: Final = 64
MAX_RECORD: Final = 1_000_000
MAX_RECORDS: Final = 2_000_000
"""Bytes of a commit's records in all. Its blocks may have no more, so only a block that several
operations name can pass this: it would become so many rows, a frame of 1 MB 200 MB of them."""


class SignedCommit(msgspec.Struct, frozen=True, gc=False):
    """The commit object of a repository. `block` is what its CID names, signature included."""

    did: str
    rev: str
    data: bytes
    prev: bytes | None
    sig: bytes
    block: bytes


class RecordOp(msgspec.Struct, frozen=True, gc=False):
    """What a commit does to one record in the end, after all of its operations on that key.

    `record` is the record's block (unparsed), for create and update; None for a delete, and where
    `problem` says why it cannot be had. The other operations of the commit are good all the same.
    `prev` is the CID of the record before the commit, where the commit names it.
    """

    action: Action
    collection: str
    rkey: str
    cid: bytes | None
    prev: bytes | None
    record: bytes | None
    problem: Reason | None


class OpenCommit(msgspec.Struct, frozen=True, gc=False):
    """A commit with its blocks, ready to be verified and applied."""

    signed: SignedCommit
    blocks: dict[bytes, bytes]
    ops: tuple[RecordOp, ...]


def open_commit(message: Commit) -> OpenCommit:
    """Split, hash and check the blocks of a `#commit`, and fold its operations.

    Raises WireError for what spoils the whole commit (TOO_BIG, BAD_CAR, BAD_CID, HASH_MISMATCH,
    COMMIT_MISSING, BAD_COMMIT, COMMIT_MISMATCH, OPS_DO_NOT_CHAIN).
    """
    if message.too_big:
        raise WireError(Reason.TOO_BIG, "the server left out the blocks of a large commit")
    content = car.read(message.blocks)
    if content.root != message.commit:
        raise WireError(Reason.COMMIT_MISMATCH, "the root of the blocks is not the commit")
    blocks = content.blocks
    signed = read_signed(content)
    _match_did(signed, message.did)
    if signed.rev != message.rev:
        raise WireError(
            Reason.COMMIT_MISMATCH, f"signed rev {shorten(signed.rev)}, sent as {message.rev}"
        )
    ops = message.ops
    if len(ops) == 1:
        return OpenCommit(signed, blocks, (_with_record(ops[0], blocks),))
    opened = [_with_record(op, blocks) for op in fold(ops)]
    if sum([len(op.record) for op in opened if op.record is not None]) > MAX_RECORDS:
        opened = _within_limit(opened)
    return OpenCommit(signed, blocks, tuple(opened))


def open_sync(message: Sync) -> SignedCommit:
    """The commit object that a `#sync` announces. Errors as `open_commit`.

    Its `rev` is the one that counts: after a reactivation real servers send a later one beside it.
    """
    signed = read_signed(car.read(message.blocks))
    _match_did(signed, message.did)
    return signed


def read_signed(content: car.Car) -> SignedCommit:
    """The commit object at the root of a CAR. Raises WireError(COMMIT_MISSING, BAD_COMMIT)."""
    block = content.blocks.get(content.root)
    if block is None:
        raise WireError(Reason.COMMIT_MISSING, f"no block of {cid.to_text(content.root)}")
    try:
        fields = cbor.decode(block)
    except WireError as error:
        raise WireError(Reason.BAD_COMMIT, error.detail) from None
    if type(fields) is not dict:
        raise WireError(Reason.BAD_COMMIT, "not a map")
    version = fields.get("version")
    if type(version) is not int or version != VERSION:
        raise WireError(Reason.BAD_COMMIT, f"version is {shorten(version)}")
    did, rev, data = fields.get("did"), fields.get("rev"), fields.get("data")
    if type(did) is not str or type(rev) is not str:
        raise WireError(Reason.BAD_COMMIT, f"did is {shorten(did)}, rev is {shorten(rev)}")
    if type(data) is not bytes or not cid.is_record_cid(data):
        raise WireError(Reason.BAD_COMMIT, f"data is {shorten(data)}")
    prev = fields.get("prev", False)
    if prev is not None and not cid.is_record_cid(prev):
        raise WireError(Reason.BAD_COMMIT, "prev is neither null nor a CID")
    sig = fields.get("sig")
    if type(sig) is not bytes or len(sig) != SIGNATURE_SIZE:
        raise WireError(Reason.BAD_COMMIT, f"sig is {shorten(sig)}")
    return SignedCommit(did, rev, data, prev, sig, block)


def fold(ops: tuple[Op, ...]) -> list[Op]:
    """One operation for each key, in the order in which the keys first appear.

    Where one write creates and then changes a record, servers send both operations, without `prev`,
    and only the last record. A create followed by a delete stays a delete: it does nothing to an
    index that is in step, and mends one that is not. Raises WireError(OPS_DO_NOT_CHAIN) where an
    operation cannot follow the one before it.
    """
    last: dict[tuple[str, str], Op] = {}
    for op in ops:
        key = (op.collection, op.rkey)
        before = last.get(key)
        last[key] = op if before is None else _chain(before, op)
    return list(last.values())


def _chain(first: Op, second: Op) -> Op:
    exists = first.action is not Action.DELETE
    if (second.action is Action.CREATE) is exists or (
        second.prev is not None and second.prev != first.cid
    ):
        raise WireError(
            Reason.OPS_DO_NOT_CHAIN, f"{first.path}: {second.action} after {first.action}"
        )
    if second.action is Action.DELETE:
        action = Action.DELETE
    elif first.action is Action.CREATE:
        action = Action.CREATE
    else:
        action = Action.UPDATE
    return Op(action, first.collection, first.rkey, second.cid, first.prev)


def _with_record(op: Op, blocks: dict[bytes, bytes]) -> RecordOp:
    record, problem = None, None
    if op.cid is not None:
        record = blocks.get(op.cid)
        if record is None:
            problem = Reason.RECORD_MISSING
        elif len(record) > MAX_RECORD:
            record, problem = None, Reason.RECORD_TOO_LARGE
    return RecordOp(op.action, op.collection, op.rkey, op.cid, op.prev, record, problem)


def _within_limit(ops: list[RecordOp]) -> list[RecordOp]:
    """The operations with the records that fit, in their order; the others have their reason."""
    within, left = [], MAX_RECORDS
    for op in ops:
        size = 0 if op.record is None else len(op.record)
        if size > left:
            large = Reason.RECORDS_TOO_LARGE
            within.append(msgspec.structs.replace(op, record=None, problem=large))
        else:
            left -= size
            within.append(op)
    return within


def _match_did(signed: SignedCommit, did: str) -> None:
    if signed.did != did:
        raise WireError(Reason.COMMIT_MISMATCH, f"signed for {shorten(signed.did)}, sent as {did}")
