"""From frames to a batch: decode, open, check, make rows. Pure: no I/O, no state but the batch.

Whatever is wrong with a frame, a commit or a record becomes a drop with its reason, and the rest
goes on: a broken record costs itself, a broken commit its records, never more.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from actors.atproto import (
    cid,
    commit,
    datamodel,
    datetimes,
    frames,
    inversion,
    signature,
    tid,
)
from actors.atproto.did import MAX_LENGTH as MAX_DID
from actors.atproto.errors import Reason, WireError
from actors.atproto.events import Account, Action, Commit, Identity, Sync
from actors.atproto.uri import split_path
from actors.drops import Drop, DropReason
from actors.present import Present
from actors.records import fields, record_type
from actors.records.record import RecordType, Row, Source
from actors.store.batch import (
    AccountState,
    AppliedCommit,
    Change,
    Dropped,
    Fetched,
    IdentityState,
    Operation,
    Signature,
    SyncState,
)

Validate = Callable[[str, str, dict[str, Any]], object | None]
"""Takes collection, record key and record; gives what is wrong with it, or None."""


@dataclass(slots=True)
class Batch:
    """Decoded changes in the order of the stream, and what decoding them brought to light.

    `authors` and `subjects` are the DIDs that need `users` rows; `events` counts frames by kind;
    `drops` are frames and commits of which nothing could be used (a commit carries those of its
    records itself). `size` is in bytes of records; one that many operations name counts each time.
    What `validate` finds fault with is dropped; with `report_only` it is `reported` and goes on.
    With `signatures` commits carry what is to be verified of them, with `trees` their operations
    are undone on the tree that they carry. `present` bounds the times of events; without it they
    are taken as they are.
    """

    changes: list[Change] = field(default_factory=list)
    authors: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    drops: list[Dropped] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    sanitised: int = 0
    size: int = 0
    validate: Validate | None = None
    report_only: bool = False
    reported: list[Dropped] = field(default_factory=list)
    signatures: bool = False
    trees: bool = False
    present: Present | None = None

    def add(self, frame: bytes, host: str = "") -> None:
        """Decode one frame of a host into the batch."""
        try:
            event = frames.decode(frame)
        except WireError as error:
            self.events["broken"] += 1
            self._drop(error.reason, _owner(frame), error.detail)
            return
        match event:
            case Commit():
                self.events["commit"] += 1
                self._commit(event, host, frame)
            case Sync():
                self.events["sync"] += 1
                self._sync(event, host, frame)
            case Identity():
                self.events["identity"] += 1
                time = self._time(event.time)
                self.changes.append(IdentityState(event.did, host, event.seq, time))
            case Account():
                self.events["account"] += 1
                time = self._time(event.time)
                self.changes.append(
                    AccountState(event.did, event.active, event.status, host, event.seq, time)
                )
            case _:
                self.events["other"] += 1

    def _drop(self, reason: str, subject: str, detail: str) -> None:
        self.drops.append(Dropped(str(reason), subject, detail))

    def tallies(self) -> dict[str, int]:
        """Return what is counted for the run, by name; what commits did is counted with them."""
        tallies = {f"events.{kind}": count for kind, count in self.events.items()}
        for drop in self.drops:
            name = f"drop.{drop.reason}"
            tallies[name] = tallies.get(name, 0) + 1
        if self.reported:
            tallies["lexicon.reported"] = len(self.reported)
        return tallies

    def _sync(self, event: Sync, host: str, frame: bytes) -> None:
        try:
            signed = commit.open_sync(event)
            proof = self._signature(signed)
            ahead = self._is_ahead(signed.rev, self._time(event.time), event.did)
        except WireError as error:
            self._drop(error.reason, event.did, error.detail)
            return
        if not ahead:
            self.changes.append(
                SyncState(event.did, signed.rev, signed.data, host, event.seq, frame, proof)
            )

    def _time(self, time: datetime) -> int:
        """The time of an event, in microseconds; one from the future counts as the present."""
        micros = datetimes.to_microseconds(time)
        return micros if self.present is None else self.present.bound(micros)

    def _is_ahead(self, rev: str, time: int, did: str) -> bool:
        """Whether a rev lies in the future of its event, which is then dropped. Raises WireError.

        Such a rev would keep every later commit of its repository out. The event's own time is the
        measure, within its bound: so a replay decides as the first run did, whenever it takes
        place, and nobody is locked out by an event that is dated years ahead.
        """
        ahead = tid.to_microseconds(rev) - time
        if ahead <= frames.MAX_REV_AHEAD:
            return False
        detail = f"rev {rev} is {ahead // 1_000_000} s ahead of its event"
        self._drop(Reason.REV_IN_FUTURE, did, detail)
        return True

    def _commit(self, event: Commit, host: str, frame: bytes) -> None:
        try:
            opened = commit.open_commit(event)
            if self.trees:
                inversion.check(opened, event.prev_data)
            signed = self._signature(opened.signed)
        except WireError as error:
            self._drop(error.reason, event.did, error.detail)
            return
        did = event.did
        time = self._time(event.time)
        if self._is_ahead(event.rev, time, did):
            return
        seq = str(event.seq)
        operations = []
        drops: list[Dropped] = []
        for op in opened.ops:
            text = "" if op.cid is None else cid.to_text(op.cid)
            uri = f"at://{did}/{op.collection}/{op.rkey}"
            source = Source(uri, did, op.rkey, text, time, seq, event.rev)
            operation = self._operation(source, op.collection, op.record, op.problem, drops)
            if operation is not None:
                row = operation.row
                if row is not None and operation.type.carry and op.action is Action.UPDATE:
                    operation = operation._replace(row=row._replace(past=True))
                operations.append(operation)
        self.authors.add(did)
        self.changes.append(
            AppliedCommit(
                did,
                event.rev,
                event.since,
                event.prev_data,
                opened.signed.data,
                operations,
                drops,
                time,
                host=host,
                seq=event.seq,
                frame=frame,
                signature=signed,
            )
        )

    def _signature(self, signed: commit.SignedCommit) -> Signature | None:
        if not self.signatures:
            return None
        return Signature(signature.unsigned(signed.block), signed.sig)

    def fetched(
        self, did: str, rev: str, records: Iterable[tuple[str, bytes | None, bytes | None]]
    ) -> Fetched:
        """Make a change of records (path, CID, block) that a repository held at `rev`.

        Without a block the record is not there. They take the time of the rev.
        """
        time = min(tid.to_microseconds(rev), fields.LATEST_MICROS)
        operations = []
        drops: list[Dropped] = []
        for path, name, block in records:
            parts = split_path(path)
            if parts is None:
                detail = "not the path of a record"
                drops.append(Dropped(Reason.BAD_PATH, f"at://{did}/{path[:600]}", detail))
                continue
            collection, rkey = parts
            text = "" if name is None else cid.to_text(name)
            source = Source(f"at://{did}/{path}", did, rkey, text, time, None, rev)
            operation = self._operation(source, collection, block, None, drops)
            if operation is not None:
                operations.append(operation)
        self.authors.add(did)
        return Fetched(did, rev, time, operations, drops)

    def _operation(
        self,
        source: Source,
        collection: str,
        record: bytes | None,
        problem: Reason | None,
        drops: list[Dropped],
    ) -> Operation | None:
        """Make the operation on a record's key; None where the key means nothing to its type."""
        type_ = record_type(collection)
        uri = source.uri
        if type_.only_key is not None and source.rkey != type_.only_key:
            if record is not None or problem is not None:
                detail = f"the key of {collection} must be {type_.only_key}"
                drops.append(Dropped(DropReason.NOT_AUTHORIZED, uri, detail))
            return None
        row: Row | None = None
        if problem is not None:
            drops.append(Dropped(problem, uri, "the commit does not hold it as it should"))
        elif record is not None:
            self.size += len(record)
            row = self._row(type_, source, record, collection, drops)
        return Operation(type_, type_.key(uri, source.did, source.rkey), uri, source.cid, row)

    def _row(
        self,
        type_: RecordType,
        source: Source,
        block: bytes,
        collection: str,
        drops: list[Dropped],
    ) -> Row | None:
        """Make the row of a record; None and a drop where it cannot be indexed.

        The repository no longer holds what the key named before, so a dropped record still ends it.
        """
        try:
            data, sanitised = datamodel.to_data(block)
            if data["$type"] != collection:
                detail = f"$type is {data['$type'][:100]!r}"
                drops.append(Dropped(DropReason.TYPE_MISMATCH, source.uri, detail))
                return None
            fields.check_key(source.uri, "its uri")
            if self.validate is not None:
                self._check(self.validate, collection, source, data)
            row = type_.build(source, data)
        except (WireError, Drop) as error:
            drops.append(Dropped(str(error.reason), source.uri, error.detail))
            return None
        self.sanitised += sanitised
        self.subjects.update(row.subjects)
        return row

    def _check(
        self, validate: Validate, collection: str, source: Source, data: dict[str, Any]
    ) -> None:
        """Report what breaks its lexicon, or raise Drop."""
        problem = validate(collection, source.rkey, data)
        if problem is None:
            return
        if not self.report_only:
            raise Drop(DropReason.LEXICON, str(problem))
        self.reported.append(Dropped(DropReason.LEXICON, source.uri, str(problem)))


def _owner(frame: bytes) -> str:
    """Name the DID of a frame that cannot be decoded, where it can at least be peeked."""
    try:
        return (frames.peek(frame).did or "")[:MAX_DID]
    except WireError:
        return ""
