"""A batch: decoded commits of a shard's authors, in the order of the stream, with nothing to do but
write them. And what a batch did, once it is written.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.records.record import RecordType, Row


class Operation(NamedTuple):
    """What one record key came to in one commit: a row, or nothing any more.

    `key` is the primary key of its row; `cid` the record's CID (text), empty where it is gone.
    """

    type: RecordType
    key: str
    uri: str
    cid: str
    row: Row | None


class Dropped(NamedTuple):
    """One drop: its reason, what it concerned (uri or DID), and what was wrong."""

    reason: str
    subject: str
    detail: str


class AppliedCommit(NamedTuple):
    """A commit ready to be applied, its operations folded per key.

    `data` and `prev_data` are CIDs; `drops` are its records that cannot be indexed, which count
    when the commit does.
    """

    did: str
    rev: str
    since: str | None
    prev_data: bytes | None
    data: bytes
    operations: Sequence[Operation]
    drops: Sequence[Dropped] = ()


class SyncState(NamedTuple):
    """A repository's state as its host declares it, without a way there from the last one."""

    did: str
    rev: str
    data: bytes


Change = AppliedCommit | SyncState


@dataclass(slots=True)
class Outcome:
    """What a written batch did.

    `commits` were applied, `replayed` were known already, `discontinuous` were applied although
    their repository was not in the state they follow from; `operations` counts by table and by
    what became of the record (put, delete). `outbox` holds the rows written for each receiver, in
    the order they were given.
    """

    commits: int = 0
    replayed: int = 0
    discontinuous: int = 0
    out_of_step: int = 0
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    outbox: list[int] = field(default_factory=list)
    drops: list[Dropped] = field(default_factory=list)
    retries: int = 0

    def tallies(self) -> dict[str, int]:
        """Return what is counted for the run, by name."""
        tallies = {
            "commits": self.commits,
            "replayed": self.replayed,
            "discontinuous": self.discontinuous,
            "out_of_step": self.out_of_step,
            "ops": sum(self.operations.values()),
        }
        for (table, action), amount in self.operations.items():
            tallies[f"ops.{table}.{action}"] = amount
        for drop in self.drops:
            name = f"drop.{drop.reason}"
            tallies[name] = tallies.get(name, 0) + 1
        return tallies

    def add(self, other: "Outcome") -> None:
        """Add what another part of the same batch did."""
        self.commits += other.commits
        self.replayed += other.replayed
        self.discontinuous += other.discontinuous
        self.out_of_step += other.out_of_step
        self.operations.update(other.operations)
        self.outbox.extend(other.outbox)
        self.drops.extend(other.drops)
        self.retries += other.retries
