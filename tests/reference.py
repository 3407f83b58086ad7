"""The reference indexer: what the tables must hold after a run of frames, by definition.

It keeps the final records in dicts and counts by counting: no batches, no shards, no deltas, no
database. It takes nothing from the engine's record rules or writer, so that it cannot share their
mistakes. Settings (opt-outs, takedowns, mutes, subscriptions) are made between two frames; what was
delivered before has been carried out then.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import libipld

from tests.reference_accounts import Moment, Standing, event_of, status_of
from tests.reference_decode import (
    Dropped,
    cid_text,
    decode_record,
    is_tid,
    record_time,
)
from tests.reference_events import (
    MAX_BLOCKS_BYTES,
    MAX_SYNC_BYTES,
    blocks_of,
    commit_object,
    envelope,
    operations_of,
    record_block,
)
from tests.reference_judgement import judge, owner
from tests.reference_notifications import Notice, Notices, World
from tests.reference_past import Past
from tests.reference_records import POST, PROFILE, VERIFICATION, Accepted, accept, check_key
from tests.reference_tables import Tables, build, split


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
    withheld: bool = False


@dataclass
class Reference:
    """State after the frames seen so far; `drops` counts what was refused, by reason."""

    records: dict[str, Record] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    drops: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    accounts: dict[str, Standing] = field(default_factory=dict)
    # The pack by which each account came, while its profile says so.
    joined: dict[str, str | None] = field(default_factory=dict)
    # Told at the deletion of verifications.
    unverified: dict[str, Notice] = field(default_factory=dict)
    notices: Notices = field(default_factory=Notices)
    past: Past = field(default_factory=Past)
    opted_out: set[str] = field(default_factory=set)
    taken_down: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    mutes: set[tuple[str, str]] = field(default_factory=set)
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    _of_author: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def frame(self, raw: bytes, host: str = "") -> None:
        """Apply one firehose message of a host; frames come in the order of the stream."""
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
                self._commit(body, host)
            elif kind == "#sync":
                self._sync(body)
            elif kind == "#account":
                self._account(body, host)
            elif kind == "#identity":
                self._identity(body, host)
        except Dropped as drop:
            self.drops[drop.reason] += 1

    def settle(self) -> None:
        """Come to a quiet point: all that follows from what was delivered has been carried out."""
        indexed, _ = split(self.records.values())
        world = World({record.uri: record for record in indexed}, judge(indexed), self.joined)
        self.notices.settle(world, self.past, self.mutes, self.subscriptions, self.forgotten)
        self.past.quiet()

    def tables(self) -> Tables:
        """Every table of the index at a quiet point: table -> key -> column -> value."""
        self.settle()
        return build(self)

    # --- settings, each at a quiet point ---------------------------------------------------------

    def opt_out(self, did: str, *, forbidden: bool = True) -> None:
        """An account forbids the collection of data, or allows it again."""
        self.settle()
        (self.opted_out.add if forbidden else self.opted_out.discard)(did)

    def forget(self, did: str) -> None:
        """The operator removes all that is stored of an account, which counts as an opt-out."""
        self.opt_out(did)
        self.forgotten.add(did)
        self._purge(did)
        self._withhold(did)
        # What the AppView kept for it goes as well.
        self.mutes = {pair for pair in self.mutes if pair[0] != did}
        self.subscriptions = {pair for pair in self.subscriptions if pair[0] != did}
        self.notices.forget(did)
        for uri in [uri for uri, notice in self.unverified.items() if notice.recipient == did]:
            del self.unverified[uri]

    def take_down(self, subject: str) -> None:
        """The operator refuses an account or a record from now on, and removes what is there."""
        self.settle()
        self.taken_down.add(subject)
        if subject.startswith("did:"):
            self._purge(subject)
            self._withhold(subject)
        else:
            self._change(owner(subject), {subject: None})

    def let_back(self, subject: str) -> None:
        """The operator takes a takedown back: what was removed comes with the whole repository."""
        self.settle()
        self.taken_down.discard(subject)
        if not subject.startswith("did:") and owner(subject) in self.repos:
            self.repos[owner(subject)].out_of_step = True

    def mute(self, muter: str, thread: str) -> None:
        """Somebody mutes a thread, by the uri of its root."""
        self.settle()
        self.mutes.add((muter, thread))

    def subscribe(self, subscriber: str, author: str) -> None:
        """Somebody wants to hear of the posts of an author."""
        self.settle()
        self.subscriptions.add((subscriber, author))

    def sweep(self) -> None:
        """Mark repositories of which nothing is withheld any more, as happens every minute."""
        refused = {owner(uri) for uri in self.taken_down if uri.startswith("at://")}
        for did, repo in self.repos.items():
            if repo.withheld and self._forbidden(did) is None and did not in refused:
                repo.out_of_step, repo.withheld = True, False

    def _withhold(self, did: str) -> None:
        if did in self.repos:
            self.repos[did].withheld = True

    def _forbidden(self, did: str) -> str | None:
        """Why nothing of this author may be stored."""
        if did in self.opted_out:
            return "opted_out"
        return "taken_down" if did in self.taken_down else None

    # --- records ---------------------------------------------------------------------------------

    def _indexed_of(self, author: str) -> set[str]:
        own = self._of_author[author]
        indexed, _ = split(self.records[uri] for uri in own)
        return {record.uri for record in indexed}

    def _change(
        self, author: str, changes: dict[str, Record | None], updated: Collection[str] = ()
    ) -> None:
        """Put records of an author (`updated` are later versions), or take them away."""
        if not changes:
            return
        before, own = self._indexed_of(author), self._of_author[author]
        for uri, record in changes.items():
            own.discard(uri)
            self.records.pop(uri, None)
            if record is None:
                continue
            own.add(uri)
            self.records[uri] = record
            self.past.wrote(uri)
            if record.collection == POST:
                self.past.threads[uri].add(record.fields["root_uri"] or uri)
        self.past.lost(before - self._indexed_of(author))
        profile = f"at://{author}/{PROFILE}/self"
        if profile in changes:
            self._join(author, changes[profile], profile in before, profile in updated)

    def _join(self, did: str, profile: Record | None, again: bool, updated: bool) -> None:
        """Keep the pack of the first version of a profile as long as all later ones name it."""
        named = None if profile is None else profile.fields["pack"]
        kept = self.joined.get(did) if again else None if updated else named
        self.joined[did] = named if named == kept else None

    def _unverify(self, record: Record, time: datetime) -> None:
        subject = record.fields["subject_did"]
        if subject != record.author:
            uri = f"{record.uri}#notification/unverified"
            self.unverified[uri] = Notice(
                uri, subject, record.author, "unverified", None, None, time, record.uri
            )

    def _purge(self, did: str) -> None:
        """Remove all that an account wrote."""
        self._change(did, dict.fromkeys(sorted(self._of_author[did])))
        for uri in [uri for uri, notice in self.unverified.items() if notice.author == did]:
            del self.unverified[uri]

    # --- events ----------------------------------------------------------------------------------

    def _commit(self, body: dict[str, Any], host: str) -> None:
        author, rev, time = envelope(body, "repo")
        operations = operations_of(body.get("ops"))
        since, previous_data = body.get("since"), body.get("prevData")
        if since is not None and not is_tid(since):
            raise Dropped("bad_rev")
        if body.get("tooBig") is True:
            raise Dropped("too_big")
        known = self.repos.get(author)
        if known is not None and rev <= known.rev:
            self.events["skipped"] += 1
            return
        root, blocks = blocks_of(body.get("blocks"), MAX_BLOCKS_BYTES)
        if root != body.get("commit"):
            raise Dropped("commit_mismatch")
        data = commit_object(blocks, root, author, rev)

        self.users.add(author)
        changes: dict[str, Record | None] = {}
        refused: Counter[str] = Counter()
        first = {op[1]: op[0] for op in reversed(operations)}
        for path, (action, cid) in {op[1]: (op[0], op[2]) for op in operations}.items():
            # What an operation touches no longer stands, whatever becomes of its new state.
            changes[f"at://{author}/{path}"] = None
            if action == "delete":
                continue
            assert cid is not None
            collection, _, rkey = path.partition("/")
            try:
                check_key(collection, rkey)
                value = decode_record(record_block(blocks, cid))
                accepted: Accepted = accept(author, collection, rkey, value)
            except Dropped as drop:
                refused[drop.reason] += 1
                continue
            self.users |= accepted.users
            record = Record(
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
            changes[record.uri] = record

        if self._is_refused(author, Moment(host, body["seq"], time)):
            raise Dropped("account_inactive")
        self.drops += refused
        self.events["ops"] += len(operations)
        repo = Repo(rev, data)
        forbidden = self._forbidden(author)
        if known is not None:
            repo.out_of_step = (
                known.out_of_step
                or since != known.rev
                or (previous_data is not None and previous_data != known.data)
                # What was withheld is allowed again, and not here.
                or (known.withheld and forbidden is None)
            )
            repo.withheld = known.withheld and forbidden is not None
        self.repos[author] = repo
        for uri, changed in changes.items():
            if changed is not None and (forbidden is not None or uri in self.taken_down):
                self.drops[forbidden or "taken_down"] += 1
                repo.withheld = repo.withheld or forbidden is not None
                changes[uri] = None
                # Nobody took it back.
                continue
            gone = self.records.get(uri)
            if gone is not None and changes[uri] is None and gone.collection == VERIFICATION:
                self._unverify(gone, time)
        updated = [f"at://{author}/{path}" for path in first if first[path] != "create"]
        self._change(author, changes, updated)

    def _is_refused(self, did: str, moment: Moment) -> bool:
        """Whether an account was away when it wrote something that has not been applied."""
        known = self.accounts.get(did)
        if known is None or known.account is None:
            return False
        # One that comes again after the account is back was refused the first time.
        again = known.account.host == moment.host and known.account.is_after(moment)
        return not known.active or again

    def _account(self, body: dict[str, Any], host: str) -> None:
        did, moment = event_of(body, host)
        active, status = status_of(body)
        known = self.accounts.setdefault(did, Standing())
        if not moment.is_after(known.account):
            return
        before = known.shown
        known.active, known.status, known.account = active, status, moment
        if known.shown == before:
            return
        self.users.add(did)
        if active and did in self.repos:
            self.repos[did].out_of_step = True
        if known.shown == "deleted":
            self._purge(did)

    def _identity(self, body: dict[str, Any], host: str) -> None:
        did, moment = event_of(body, host)
        known = self.accounts.setdefault(did, Standing())
        if moment.is_after(known.identity):
            known.identity = moment

    def _sync(self, body: dict[str, Any]) -> None:
        did, rev, _ = envelope(body, "did")
        root, blocks = blocks_of(body.get("blocks"), MAX_SYNC_BYTES)
        data = commit_object(blocks, root, did, rev)
        known = self.repos.get(did)
        account = self.accounts.get(did)
        if known is None or (account is not None and not account.active):
            return
        if rev > known.rev or (rev == known.rev and data != known.data):
            known.out_of_step = True
