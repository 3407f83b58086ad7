"""Frames of `com.atproto.sync.subscribeRepos`: bytes to checked events.

A binary websocket message is two DAG-CBOR items, a header `{op, t}` and a body. Unknown fields are
ignored, unknown events too. Sources: the atproto specification, "Event Stream" and "Repository
Synchronization", and the lexicon `com.atproto.sync.subscribeRepos`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from actors.atproto import cbor, cid, datetimes, did, tid, uri
from actors.atproto.errors import Reason, WireError, shorten
from actors.atproto.events import (
    ACTIONS,
    Account,
    Action,
    Commit,
    ErrorFrame,
    Event,
    Identity,
    Info,
    Kind,
    Op,
    Sync,
)
from actors.atproto.peek import KINDS, MAX_FRAME, MAX_SEQ, Peek, peek

__all__ = ["MAX_BLOCKS", "MAX_FRAME", "MAX_OPS", "Peek", "decode", "encode", "peek"]

MAX_BLOCKS: Final = 2_000_000
MAX_SYNC_BLOCKS: Final = 10_000
MAX_OPS: Final = 200
MAX_REV_AHEAD: Final = 5 * 60 * 1_000_000
MAX_HANDLE: Final = 253
MAX_NAME: Final = 256


def decode(frame: bytes, now: int | None = None) -> Event | None:
    """The event in a frame, or None for one that this version does not know.

    With `now` (microseconds since 1970) a `rev` more than five minutes ahead of it is refused.
    Raises WireError for anything that breaks a rule; nothing else, whatever the bytes.
    """
    if len(frame) > MAX_FRAME:
        raise WireError(Reason.FRAME_TOO_LARGE, f"{len(frame)} bytes, {MAX_FRAME} are allowed")
    header, body = cbor.decode_pair(frame)
    if type(header) is not dict or type(body) is not dict:
        raise WireError(Reason.BAD_FRAME, "header and body must both be maps")
    op = header.get("op")
    if type(op) is not int:
        raise WireError(Reason.BAD_FRAME, f"header with op {shorten(op)}")
    if op == -1:
        name = body.get("error")
        return ErrorFrame(name if type(name) is str else "Unknown", _optional(body, "message"))
    name = header.get("t")
    if op != 1:
        return None
    if type(name) is not str:
        raise WireError(Reason.BAD_FRAME, f"header with t {shorten(name)}")
    kind = KINDS.get(name)
    return None if kind is None else _DECODERS[kind](body, now)


def encode(name: str, body: dict[str, Any]) -> bytes:
    """The frame of an event, for tests and synthetic networks. The bytes of a CID become a link."""
    return cbor.encode({"t": name, "op": 1}) + cbor.encode(body)


def _commit(body: dict[str, Any], now: int | None) -> Commit:
    seq, time = _seq(body), _time(body)
    repo = body.get("repo")
    if type(repo) is not str or not did.is_valid(repo):
        raise _bad_did(body, "repo", repo)
    rev = _rev(body, now)
    since = body.get("since")
    if since is not None and (type(since) is not str or not tid.is_valid(since)):
        raise WireError(Reason.BAD_REV, f"since is {shorten(since)}")
    prev_data = body.get("prevData")
    if prev_data is not None and not cid.is_record_cid(prev_data):
        raise WireError(Reason.BAD_CID, f"prevData is {shorten(prev_data)}")
    commit = body.get("commit")
    if type(commit) is not bytes or not cid.is_record_cid(commit):
        raise _bad_field(body, "commit", Reason.BAD_CID)
    blocks = body.get("blocks")
    if type(blocks) is not bytes:
        raise _bad_field(body, "blocks")
    if len(blocks) > MAX_BLOCKS:
        raise WireError(Reason.BLOCKS_TOO_LARGE, f"{len(blocks)} bytes, {MAX_BLOCKS} are allowed")
    ops = body.get("ops")
    if type(ops) is not list:
        raise _bad_field(body, "ops")
    if len(ops) > MAX_OPS:
        raise WireError(Reason.TOO_MANY_OPS, f"{len(ops)} operations, {MAX_OPS} are allowed")
    too_big = body.get("tooBig") is True
    checked = tuple([_op(op) for op in ops])
    return Commit(seq, repo, rev, since, prev_data, commit, blocks, checked, time, too_big)


def _op(op: object) -> Op:
    if type(op) is not dict:
        raise WireError(Reason.BAD_OP, "an operation is not a map")
    path = op.get("path")
    parts = uri.split_path(path) if type(path) is str else None
    if parts is None:
        raise WireError(Reason.BAD_PATH, f"path is {shorten(path)}")
    name = op.get("action")
    action = ACTIONS.get(name) if type(name) is str else None
    if action is None:
        raise WireError(Reason.BAD_OP, f"{path}: action is {shorten(name)}")
    record, prev = op.get("cid"), op.get("prev")
    if action is Action.DELETE:
        if record is not None:
            raise WireError(Reason.BAD_OP, f"{path}: a deletion with a cid")
    elif not cid.is_record_cid(record):
        raise WireError(Reason.BAD_OP, f"{path}: cid is {shorten(record)}")
    if prev is not None and (action is Action.CREATE or not cid.is_record_cid(prev)):
        raise WireError(Reason.BAD_OP, f"{path}: {action} with prev {shorten(prev)}")
    return Op(action, parts[0], parts[1], record, prev)


def _sync(body: dict[str, Any], now: int | None) -> Sync:
    seq, time, repo = _seq(body), _time(body), _did(body)
    rev = _rev(body, now)
    blocks = body.get("blocks")
    if type(blocks) is not bytes:
        raise _bad_field(body, "blocks")
    if len(blocks) > MAX_SYNC_BLOCKS:
        raise WireError(
            Reason.BLOCKS_TOO_LARGE, f"{len(blocks)} bytes, {MAX_SYNC_BLOCKS} are allowed"
        )
    return Sync(seq, repo, rev, blocks, time)


def _identity(body: dict[str, Any], _now: int | None) -> Identity:
    # An ill-formed handle is only a bad hint: the event still says that something changed.
    handle = _optional(body, "handle")
    if handle is not None and len(handle) > MAX_HANDLE:
        handle = None
    return Identity(_seq(body), _did(body), _time(body), handle)


def _account(body: dict[str, Any], _now: int | None) -> Account:
    active = body.get("active")
    if type(active) is not bool:
        raise _bad_field(body, "active")
    status = _optional(body, "status")
    if status is not None:
        # PostgreSQL refuses such strings, and no record is to blame that could be left out.
        status = status.replace("\0", "")
    if status is not None and len(status) > MAX_NAME:
        raise WireError(Reason.WRONG_TYPE, f"status is {shorten(status)}")
    return Account(_seq(body), _did(body), _time(body), active, status)


def _info(body: dict[str, Any], _now: int | None) -> Info:
    name = body.get("name")
    if type(name) is not str:
        raise _bad_field(body, "name")
    return Info(name, _optional(body, "message"))


_DECODERS: Final[dict[Kind, Callable[[dict[str, Any], int | None], Event]]] = {
    Kind.COMMIT: _commit,
    Kind.SYNC: _sync,
    Kind.IDENTITY: _identity,
    Kind.ACCOUNT: _account,
    Kind.INFO: _info,
}


def _seq(body: dict[str, Any]) -> int:
    seq = body.get("seq")
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        raise WireError(Reason.BAD_SEQ, f"seq is {shorten(seq)}")
    return seq


def _did(body: dict[str, Any]) -> str:
    value = body.get("did")
    if type(value) is not str or not did.is_valid(value):
        raise _bad_did(body, "did", value)
    return value


def _bad_did(body: dict[str, Any], field: str, value: object) -> WireError:
    if type(value) is str:
        return WireError(Reason.BAD_DID, f"{field} is {shorten(value)}")
    return _bad_field(body, field)


def _rev(body: dict[str, Any], now: int | None) -> str:
    rev = body.get("rev")
    if type(rev) is not str:
        raise _bad_field(body, "rev")
    if not tid.is_valid(rev):
        raise WireError(Reason.BAD_REV, f"rev is {shorten(rev)}")
    if now is not None:
        ahead = tid.to_microseconds(rev) - now
        if ahead > MAX_REV_AHEAD:
            raise WireError(Reason.REV_IN_FUTURE, f"rev {rev} is {ahead // 1_000_000} s ahead")
    return rev


def _time(body: dict[str, Any]) -> datetime:
    text = body.get("time")
    if type(text) is not str:
        raise _bad_field(body, "time")
    time = datetimes.parse(text)
    if time is None:
        raise WireError(Reason.BAD_TIME, f"time is {shorten(text)}")
    return time


def _optional(body: dict[str, Any], field: str) -> str | None:
    value = body.get(field)
    return value if type(value) is str else None


def _bad_field(body: dict[str, Any], field: str, reason: Reason = Reason.WRONG_TYPE) -> WireError:
    if field not in body:
        return WireError(Reason.MISSING_FIELD, field)
    return WireError(reason, f"{field} is {shorten(body[field])}")
