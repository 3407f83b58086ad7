"""Passing a batch's changes by the guards: what is new, what is known, what is refused.

Pure. Commits at or below their repository's rev are known and skipped; those of an account that is
not active are not applied; what its author or the operator forbids to store becomes a removal. The
rest is folded to one last operation per key. Events about accounts have a guard of their own: by
host and sequence number, and by time across hosts.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.atproto import skeleton
from actors.drops import DropReason
from actors.store.batch import (
    AccountState,
    AppliedCommit,
    Change,
    Dropped,
    Fetched,
    IdentityState,
    Operation,
    Outcome,
    Refused,
    Removal,
    Resynced,
    SyncState,
)
from actors.store.news import placed
from actors.store.parking import Arriving


class Repo(NamedTuple):
    """The rev guard of a repository: its last applied state.

    `withheld`: some of it was not stored, since its author or the operator forbids it.
    """

    rev: str
    data: bytes | None
    out_of_step: bool
    withheld: bool = False


class Moment(NamedTuple):
    """When an event happened, by its host's count and by its time (microseconds since 1970)."""

    host: str
    seq: int
    time: int

    def after(self, other: "Moment | None") -> bool:
        """Whether this is later: by number on one host, by time across hosts."""
        if other is None:
            return True
        if self.host == other.host:
            return self.seq > other.seq
        return self.time > other.time


class Account(NamedTuple):
    """What is known of an account: whether it is active, why not, and which events said so."""

    active: bool = True
    status: str | None = None
    account: Moment | None = None
    identity: Moment | None = None

    @property
    def shown_status(self) -> str | None:
        """Why the account is hidden; None while it is active."""
        return None if self.active else self.status or "inactive"


UNKNOWN_ACCOUNT = Account()


@dataclass(slots=True)
class Known:
    """What the database says of a batch's DIDs, and of the records it puts.

    `opted_out` are DIDs that forbid the collection of data, `taken_down` DIDs and uris that the
    operator refuses, `purging` DIDs whose records are being removed, `parked` those whose live
    events wait, `draining` those whose events have waited and come now, `subscribed` DIDs of whose
    posts somebody wants to be told, `strangers` those whose state nobody here is concerned with.
    For what is fetched: `beginning` is when the index began, `came` the `commit_seq` of records
    that have one.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    opted_out: set[str] = field(default_factory=set)
    taken_down: set[str] = field(default_factory=set)
    purging: set[str] = field(default_factory=set)
    subscribed: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    beginning: int | None = None
    came: dict[str, str] = field(default_factory=dict)


class Step(NamedTuple):
    """One operation on a key and the time of its commit (microseconds since 1970).

    `withheld`: it is a removal only because what was put may not be stored.
    """

    operation: Operation
    time: int
    withheld: bool = False


class PurgeFirst(Exception):
    """An account came back whose records are still being removed: that must be finished first.

    `position` is that of the change that has to wait, among the batch's.
    """

    def __init__(self, did: str, position: int) -> None:
        super().__init__(f"{did} is being purged")
        self.did = did
        self.position = position


@dataclass(slots=True)
class Folded:
    """What of a batch is to be applied.

    `final` holds the last operation by table and key; `steps` all of them, for tables in which the
    way there matters. `statuses` are accounts that are shown or hidden now, `purges` accounts that
    were deleted, `returned` those that their host says it serves, `parked` events that wait (their
    DID, host and frame), `spoiled` DIDs of which something is not there that a fetch under way has
    brought, or will not bring again.
    """

    final: dict[str, dict[str, Operation]] = field(default_factory=lambda: defaultdict(dict))
    steps: dict[str, dict[str, list[Step]]] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    statuses: dict[str, str | None] = field(default_factory=dict)
    purges: set[str] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    identities: set[str] = field(default_factory=set)
    parked: list[Arriving] = field(default_factory=list)
    spoiled: set[str] = field(default_factory=set)
    outcome: Outcome = field(default_factory=Outcome)


# A later version of a profile takes over from the one before; a verification that goes is told.
STEPPED = frozenset(("users", "verifications"))


def fold(changes: Sequence[Change], known: Known) -> Folded:
    """Pass changes by the guards, in the order of the stream. Raises PurgeFirst."""
    folded = Folded()
    for position, change in enumerate(changes):
        match change:
            case AppliedCommit() | SyncState() if change.did in known.parked:
                _park(folded, known, change)
            case AppliedCommit():
                _commit(folded, known, change, position)
            case SyncState():
                _sync(folded, known, change)
            case AccountState() | IdentityState() if change.did in known.strangers:
                folded.outcome.strangers += 1
            case AccountState():
                _account(folded, known, change)
            case IdentityState():
                _identity(folded, known, change)
            case Fetched():
                _fetched(folded, known, change, position)
            case Resynced():
                _resynced(folded, known, change)
            case Refused():
                folded.outcome.drops.extend(change.drops)
            case Removal():
                # No operation of a repository, so it is counted elsewhere.
                for operation in change.operations:
                    folded.final[operation.type.table][operation.key] = operation
    return folded


def _park(folded: Folded, known: Known, event: AppliedCommit | SyncState) -> None:
    """Have an event wait; of what may not be stored only the keys are kept, for its deletions."""
    folded.outcome.parked += 1
    arriving = Arriving(event.did, event.host, event.seq, event.frame)
    forbidden = _forbidden(known, event.did)
    if isinstance(event, AppliedCommit) and forbidden is not None:
        folded.outcome.drops += [
            Dropped(forbidden, operation.uri, "it is not stored")
            for operation in event.operations
            if operation.row is not None
        ]
        # Should it be allowed again, it is fetched.
        folded.spoiled.add(event.did)
        arriving = arriving._replace(frame=skeleton.of_commit(event.frame), withheld=True)
    folded.parked.append(arriving)


def _keep(folded: Folded, operation: Operation, time: int, *, withheld: bool = False) -> None:
    table = operation.type.table
    folded.final[table][operation.key] = operation
    folded.outcome.operations[table, "delete" if operation.row is None else "put"] += 1
    if table in STEPPED:
        of_table = folded.steps.setdefault(table, {})
        of_table.setdefault(operation.key, []).append(Step(operation, time, withheld))


def _account_of(folded: Folded, known: Known, did: str) -> Account:
    return folded.accounts.get(did) or known.accounts.get(did) or UNKNOWN_ACCOUNT


def _commit(folded: Folded, known: Known, commit: AppliedCommit, position: int) -> None:
    did = commit.did
    outcome = folded.outcome
    repo = folded.repos.get(did) or known.repos.get(did)
    if repo is not None and commit.rev <= repo.rev:
        outcome.replayed += 1
        return
    account = _account_of(folded, known, did)
    # Events of an account overtake commits that wait: the order of the two says nothing then.
    refused = did not in known.draining and _was_refused(commit, account.account)
    if not account.active or refused:
        status = account.shown_status or "not active"
        detail = f"rev {commit.rev} came while the account was {status}"
        outcome.drops.append(Dropped(DropReason.ACCOUNT_INACTIVE, did, detail))
        return
    forbidden = _forbidden(known, did)
    if forbidden is None and (did in known.purging or did in folded.purges):
        raise PurgeFirst(did, position)
    out_of_step = withheld = False
    if repo is not None:
        follows = commit.since == repo.rev and (
            commit.prev_data is None or repo.data is None or commit.prev_data == repo.data
        )
        if not follows:
            outcome.discontinuous += 1
        # What was withheld may be stored now: only the whole repository has it.
        out_of_step = repo.out_of_step or not follows or (repo.withheld and forbidden is None)
        withheld = repo.withheld and forbidden is not None
    outcome.commits += 1
    outcome.drops.extend(commit.drops)
    outcome.cuts += commit.cuts
    if _keep_allowed(folded, known, did, commit.operations, commit.time):
        withheld = True
    folded.repos[did] = Repo(commit.rev, commit.data, out_of_step, withheld)


def _was_refused(commit: AppliedCommit, event: Moment | None) -> bool:
    """Whether a commit that is new to the guard is from before an event about its account.

    It came then, while the account was away, and was refused; now it comes again, after a crash.
    """
    return event is not None and event.host == commit.host and event.seq > commit.seq


def _fetched(folded: Folded, known: Known, fetched: Fetched, position: int) -> None:
    did = fetched.did
    outcome = folded.outcome
    repo = folded.repos.get(did) or known.repos.get(did)
    # What is live is newer than what was fetched before it.
    if repo is not None and fetched.rev < repo.rev:
        outcome.stale += 1
        return
    account = _account_of(folded, known, did)
    if not account.active:
        return
    forbidden = _forbidden(known, did)
    if forbidden is None and (did in known.purging or did in folded.purges):
        raise PurgeFirst(did, position)
    outcome.drops.extend(fetched.drops)
    outcome.cuts += fetched.cuts
    since = known.beginning
    if since is not None and account.account is not None:
        # What returns with an account that was away is no news.
        since = max(since, account.account.time)
    operations = placed(fetched.operations, since, known.came)
    if not _keep_allowed(folded, known, did, operations, fetched.time):
        return
    if repo is not None:
        folded.repos[did] = repo._replace(withheld=True)
    elif did in known.parked:
        folded.spoiled.add(did)


def _resynced(folded: Folded, known: Known, resynced: Resynced) -> None:
    did = resynced.did
    repo = folded.repos.get(did) or known.repos.get(did)
    if repo is not None and resynced.rev < repo.rev:
        folded.outcome.stale += 1
        return
    if not _account_of(folded, known, did).active:
        return
    # What its slices did not bring is wanted later, even if nobody forbids it at this moment.
    withheld = _forbidden(known, did) is not None or (repo is not None and repo.withheld)
    folded.repos[did] = Repo(resynced.rev, resynced.data, out_of_step=False, withheld=withheld)


def _keep_allowed(
    folded: Folded, known: Known, did: str, operations: Iterable[Operation], time: int
) -> bool:
    """Keep operations, those that may not be stored as removals; returns whether all of the
    author's are withheld and some were.
    """
    forbidden = _forbidden(known, did)
    withheld = False
    for operation in operations:
        reason = forbidden
        if reason is None and operation.uri in known.taken_down:
            reason = DropReason.TAKEN_DOWN
        if reason is None or operation.row is None:
            _keep(folded, operation, time)
            continue
        folded.outcome.drops.append(Dropped(reason, operation.uri, "it is not stored"))
        withheld = withheld or forbidden is not None
        _keep(folded, operation._replace(row=None, cid=""), time, withheld=True)
    return withheld


def _forbidden(known: Known, did: str) -> DropReason | None:
    """Why nothing of this author may be stored, if so."""
    if did in known.opted_out:
        return DropReason.OPTED_OUT
    if did in known.taken_down:
        return DropReason.TAKEN_DOWN
    return None


def _sync(folded: Folded, known: Known, state: SyncState) -> None:
    did = state.did
    repo = folded.repos.get(did) or known.repos.get(did)
    # A repository never seen has no state to differ from: its first commit adopts it.
    if repo is None or repo.out_of_step or not _account_of(folded, known, did).active:
        return
    if state.rev > repo.rev or (state.rev == repo.rev and state.data != repo.data):
        folded.repos[did] = repo._replace(out_of_step=True)
        folded.outcome.out_of_step += 1


def _account(folded: Folded, known: Known, state: AccountState) -> None:
    did = state.did
    before = _account_of(folded, known, did)
    moment = Moment(state.host, state.seq, state.time)
    if not moment.after(before.account):
        return
    status = None if state.active else state.status
    now = before._replace(active=state.active, status=status, account=moment)
    folded.accounts[did] = now
    if now.active:
        # It may have been away before the index began.
        folded.returned.add(did)
    if now.shown_status == before.shown_status:
        return
    folded.statuses[did] = now.shown_status
    folded.outcome.statuses[now.shown_status or "active"] += 1
    if did in known.parked:
        # What was fetched meanwhile was not applied, or is purged.
        folded.spoiled.add(did)
    repo = folded.repos.get(did) or known.repos.get(did)
    if now.active and repo is not None and not repo.out_of_step:
        folded.repos[did] = repo._replace(out_of_step=True)
        folded.outcome.out_of_step += 1
    if now.shown_status == "deleted":
        folded.purges.add(did)


def _identity(folded: Folded, known: Known, state: IdentityState) -> None:
    before = _account_of(folded, known, state.did)
    moment = Moment(state.host, state.seq, state.time)
    if moment.after(before.identity):
        folded.accounts[state.did] = before._replace(identity=moment)
        folded.identities.add(state.did)
