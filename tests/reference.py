"""The reference indexer: what the tables must hold after a run of frames, by definition.

It keeps the final records in dicts and counts by counting: no batches, no shards, no deltas, no
database. It takes nothing from the engine's record rules or writer, so that it cannot share their
mistakes.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import libipld

from tests.reference_decode import (
    Dropped,
    cid_text,
    decode_record,
    is_cid,
    is_did,
    is_tid,
    parse_time,
    read_varint,
    record_time,
    split_car,
    split_path,
)
from tests.reference_records import Accepted, accept, check_key
from tests.reference_tables import Tables, build

MAX_BLOCKS_BYTES = 2_000_000
MAX_SYNC_BYTES = 10_000
MAX_OPS = 200


@dataclass
class Record:
    """A record as it stands after the last commit that wrote it."""

    author: str
    collection: str
    rkey: str
    cid: str
    value: dict[str, Any]
    fields: dict[str, Any]
    created_at: datetime
    commit_time: datetime
    commit_seq: str
    commit_rev: str

    @property
    def uri(self) -> str:
        """Its at-uri."""
        return f"at://{self.author}/{self.collection}/{self.rkey}"


@dataclass
class Repo:
    """The last applied state of a repository."""

    rev: str
    data: bytes
    out_of_step: bool = False


@dataclass
class Reference:
    """State after the frames seen so far; `drops` counts what was refused, by reason."""

    records: dict[str, Record] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    drops: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def frame(self, raw: bytes) -> None:
        """Apply one firehose message; frames come in the order of the stream."""
        try:
            header, body = libipld.decode_dag_cbor_multi(raw)
            kind, op = header.get("t"), header["op"]
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            self.drops["bad_frame"] += 1
            return
        if op != 1 or not isinstance(kind, str) or not isinstance(body, dict):
            return
        self.events[kind] += 1
        try:
            if kind == "#commit":
                self._commit(body)
            elif kind == "#sync":
                self._sync(body)
        except Dropped as drop:
            self.drops[drop.reason] += 1

    def tables(self) -> Tables:
        """Every table of the index: table -> key -> column -> value."""
        return build(list(self.records.values()), self.users, self.repos)

    # --- events ----------------------------------------------------------------------------------

    def _commit(self, body: dict[str, Any]) -> None:
        author, rev, time = _envelope(body, "repo")
        operations = _operations(body.get("ops"))
        since, previous_data = body.get("since"), body.get("prevData")
        if since is not None and not is_tid(since):
            raise Dropped("bad_rev")
        if body.get("tooBig") is True:
            raise Dropped("too_big")
        known = self.repos.get(author)
        if known is not None and rev <= known.rev:
            self.events["skipped"] += 1
            return
        root, blocks = _blocks(body.get("blocks"), MAX_BLOCKS_BYTES)
        if root != body.get("commit"):
            raise Dropped("commit_mismatch")
        data = _commit_object(blocks, root, author, rev)

        out_of_step = known is not None and (
            known.out_of_step
            or since != known.rev
            or (previous_data is not None and previous_data != known.data)
        )
        self.repos[author] = Repo(rev, data, out_of_step)
        self.users.add(author)
        self.events["ops"] += len(operations)

        final = {path: (action, cid) for action, path, cid, _ in operations}
        for path, (action, cid) in final.items():
            uri = f"at://{author}/{path}"
            # What an operation touches no longer stands, whatever becomes of its new state.
            self.records.pop(uri, None)
            if action == "delete":
                continue
            assert cid is not None
            collection, _, rkey = path.partition("/")
            try:
                check_key(collection, rkey)
                value = decode_record(_record_block(blocks, cid))
                accepted: Accepted = accept(author, collection, rkey, value)
            except Dropped as drop:
                self.drops[drop.reason] += 1
                continue
            self.users |= accepted.users
            self.records[uri] = Record(
                author=author,
                collection=collection,
                rkey=rkey,
                cid=cid_text(cid),
                value=value,
                fields=accepted.fields,
                created_at=record_time(accepted.time, time),
                commit_time=time,
                commit_seq=str(body["seq"]),
                commit_rev=rev,
            )

    def _sync(self, body: dict[str, Any]) -> None:
        did, rev, _ = _envelope(body, "did")
        root, blocks = _blocks(body.get("blocks"), MAX_SYNC_BYTES)
        data = _commit_object(blocks, root, did, rev)
        known = self.repos.get(did)
        if known is None:
            return
        if rev > known.rev or (rev == known.rev and data != known.data):
            known.out_of_step = True


def _envelope(body: dict[str, Any], who: str) -> tuple[str, str, datetime]:
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


def _operations(raw: Any) -> list[Operation]:
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


def _record_block(blocks: dict[bytes, bytes], cid: bytes) -> bytes:
    if cid not in blocks:
        raise Dropped("record_missing")
    return blocks[cid]


def _blocks(raw: Any, limit: int) -> tuple[bytes, dict[bytes, bytes]]:
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


def _commit_object(blocks: dict[bytes, bytes], cid: bytes, did: str, rev: str) -> bytes:
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
