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


class Signature(NamedTuple):
    """What a commit's signature is over, and the signature."""

    message: bytes
    sig: bytes


class AppliedCommit(NamedTuple):
    """A commit ready to be applied, its operations folded per key.

    `data` and `prev_data` are CIDs; `drops` are its records that cannot be indexed and `cuts` the
    texts that were cut to fit, which count when the commit does; `time` is the event's, in
    microseconds since 1970, and `seq` its number at its host. `frame` is what it was read from,
    where it may have to wait; `signature` is there where it is to be verified.
    """

    did: str
    rev: str
    since: str | None
    prev_data: bytes | None
    data: bytes
    operations: Sequence[Operation]
    drops: Sequence[Dropped] = ()
    time: int = 0
    cuts: int = 0
    host: str = ""
    seq: int = 0
    frame: bytes = b""
    signature: Signature | None = None


class SyncState(NamedTuple):
    """A repository's state as its host declares it, without a way there from the last one."""

    did: str
    rev: str
    data: bytes
    host: str = ""
    seq: int = 0
    frame: bytes = b""
    signature: Signature | None = None


class AccountState(NamedTuple):
    """Whether a host serves an account, and if not, why. `time` in microseconds since 1970."""

    did: str
    active: bool
    status: str | None
    host: str
    seq: int
    time: int


class IdentityState(NamedTuple):
    """An account's DID document or handle may have changed. `time` in microseconds since 1970."""

    did: str
    host: str
    seq: int
    time: int


class Removal(NamedTuple):
    """Records to be removed that no commit deleted: a slice of an account that is purged."""

    did: str
    operations: Sequence[Operation]


class Fetched(NamedTuple):
    """Records that were fetched from a repository as it was at `rev`, at `time` (microseconds since
    1970), and removals of what it holds no more. They move no guard.
    """

    did: str
    rev: str
    time: int
    operations: Sequence[Operation]
    drops: Sequence[Dropped] = ()
    cuts: int = 0


class Resynced(NamedTuple):
    """A repository was fetched whole: this is the state that is indexed now."""

    did: str
    rev: str
    data: bytes


class Refused(NamedTuple):
    """An event that waited and of which nothing can be used, and why."""

    did: str
    drops: Sequence[Dropped]


Change = (
    AppliedCommit
    | SyncState
    | AccountState
    | IdentityState
    | Removal
    | Fetched
    | Resynced
    | Refused
)


class Sent(NamedTuple):
    """A row of the outbox that a transaction wrote, to be sent along to its receiver."""

    receiver: str
    row: int
    body: bytes


# Hosts may say anything; counters are kept for these.
SHOWN_STATUSES = frozenset(("active", "deactivated", "suspended", "takendown", "deleted"))


@dataclass(slots=True)
class Outcome:
    """What a written batch did.

    `commits` were applied, `replayed` were known already, `discontinuous` were applied although
    their repository was not in the state they follow from; `cuts` texts were too long for a column
    of an existing database; `operations` counts by table and by
    what became of the record (put, delete), `statuses` accounts by what they have become, `pending`
    entries of the registry by what happened to them and their kind, `flags` judgements that
    changed. `sent` holds the rows of the outbox, in the order they were written, `purges` the
    accounts whose records are to be removed, `purged` subjects of which nothing is left. `parked`
    counts events that wait, `given_up` accounts whose waiting events were too many, `stale` what
    was fetched and is older than what is indexed, `strangers` events about accounts that a personal
    index says nothing of.
    """

    commits: int = 0
    replayed: int = 0
    discontinuous: int = 0
    out_of_step: int = 0
    cuts: int = 0
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    pending: Counter[tuple[str, str]] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    sent: list[Sent] = field(default_factory=list)
    purges: set[str] = field(default_factory=set)
    purged: set[str] = field(default_factory=set)
    drops: list[Dropped] = field(default_factory=list)
    retries: int = 0
    parked: int = 0
    given_up: int = 0
    stale: int = 0
    strangers: int = 0

    def tallies(self) -> dict[str, int]:
        """Return what is counted for the run, by name."""
        tallies = {
            "commits": self.commits,
            "replayed": self.replayed,
            "discontinuous": self.discontinuous,
            "out_of_step": self.out_of_step,
            "ops": sum(self.operations.values()),
            "parked": self.parked,
            "parked_given_up": self.given_up,
            "stale": self.stale,
        }
        for (table, action), amount in self.operations.items():
            tallies[f"ops.{table}.{action}"] = amount
        for status, amount in self.statuses.items():
            tallies[f"accounts.{status if status in SHOWN_STATUSES else 'other'}"] = amount
        for (action, kind), amount in self.pending.items():
            tallies[f"pending.{action}.{kind}"] = amount
        for flag, amount in self.flags.items():
            tallies[f"judged.{flag}"] = amount
        if self.strangers:
            tallies["strangers"] = self.strangers
        if self.cuts:
            tallies["cuts"] = self.cuts
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
        self.cuts += other.cuts
        self.operations.update(other.operations)
        self.statuses.update(other.statuses)
        self.pending.update(other.pending)
        self.flags.update(other.flags)
        self.sent.extend(other.sent)
        self.purges |= other.purges
        self.purged |= other.purged
        self.drops.extend(other.drops)
        self.retries += other.retries
        self.parked += other.parked
        self.given_up += other.given_up
        self.stale += other.stale
        self.strangers += other.strangers
