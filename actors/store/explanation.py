"""What `run.py explain` finds out of a record or an account, and what it comes to in a sentence."""

from datetime import datetime
from typing import Any

from msgspec import Struct


class Row(Struct, frozen=True):
    """A row of the index."""

    table: str
    values: dict[str, Any]


class Aside(Struct, frozen=True):
    """A record that is kept aside, as `holder` is indexed for the same thing."""

    uri: str
    table: str
    thing: str
    holder: str | None


class Flag(Struct, frozen=True):
    """A judgement of a post: as it is stored, and as it comes out now."""

    name: str
    stored: bool
    computed: bool


class Thread(Struct, frozen=True):
    """What the judgements of a post rest on. `*_there`: whether that is indexed."""

    parent: str | None
    parent_there: bool
    parent_root: str | None
    parent_invalid: bool | None
    root: str | None
    root_there: bool
    gate_there: bool
    gate_allow: Any
    quoted: str | None
    quoted_there: bool
    embedding_rules: Any
    flags: list[Flag]


class Counter(Struct, frozen=True):
    """A counter: as it is stored (None: there is no row), and as its rows are counted now."""

    name: str
    stored: int | None
    counted: int


class Wait(Struct, frozen=True):
    """An entry of the registry."""

    uri: str
    awaited: str
    kind: str
    since: datetime


class Notified(Struct, frozen=True):
    """A notification that was made because of the record."""

    uri: str
    recipient: str
    reason: str
    is_read: bool


class Purge(Struct, frozen=True):
    """A removal that is under way."""

    subject: str
    reason: str
    removed: int
    since: datetime


class Dropped(Struct, frozen=True):
    """A drop that is remembered."""

    subject: str
    reason: str
    detail: str
    at: datetime


class Letter(Struct, frozen=True):
    """A dead letter that holds what was asked for."""

    id: int
    reason: str
    at: datetime
    holds: str


class Parking(Struct, frozen=True):
    """Live events of the account that wait: for its repository or its key. `size` is in bytes."""

    reason: str
    since: datetime
    events: int
    size: int
    draining: bool
    overflowed: bool


class Fetch(Struct, frozen=True):
    """Something that is to be fetched, or was given up; `reason`: what the last try came to."""

    kind: str
    key: str
    cause: str
    state: str
    attempts: int
    next_try: datetime
    reason: str | None


class Identity(Struct, frozen=True):
    """What the resolver found out, and when it looks again. `checked_at` None: it never has."""

    server: str | None
    key: str | None
    claimed: str | None
    problem: str | None
    failures: int
    checked_at: datetime | None
    next_check: datetime


class Network(Struct, frozen=True):
    """What is under way between the index and the servers of the account. `left_out`: the index is
    of a few accounts, and not of this one.
    """

    parking: Parking | None = None
    fetches: list[Fetch] = []
    identity: Identity | None = None
    left_out: bool = False


class Repository(Struct, frozen=True):
    """The rev guard of a repository."""

    rev: str
    out_of_step: bool
    withheld: bool


class Account(Struct, frozen=True):
    """What is known of the author. `status` is None while the account is active."""

    did: str
    handle: str | None
    has_row: bool
    status: str | None
    opted_out: bool
    taken_down: bool
    repository: Repository | None
    network: Network = Network()

    @property
    def known(self) -> bool:
        """Whether anything at all is known of it."""
        said = self.has_row or self.opted_out or self.taken_down or self.status is not None
        return said or self.repository is not None or self.network.parking is not None


class Explanation(Struct, frozen=True, kw_only=True):
    """All that is known of a uri or a DID. Lists are bounded; `awaited_by` is counted in full."""

    subject: str
    author: Account
    row: Row | None = None
    aside: Aside | None = None
    holds_aside: list[str] = []
    thread: Thread | None = None
    counters: list[Counter] = []
    waits_for: list[Wait] = []
    awaited_by: list[Wait] = []
    awaited_by_count: int = 0
    notifications: list[Notified] = []
    taken_down: bool = False
    purges: list[Purge] = []
    drops: list[Dropped] = []
    letters: list[Letter] = []
    records: dict[str, int] = {}

    @property
    def known(self) -> bool:
        """Whether anything is known of the subject, or explains why nothing is."""
        if self._is_account:
            return self.author.known or self._traces or bool(self.records)
        explained = self._kept_out() is not None or self._on_its_way() is not None
        return self.row is not None or self._traces or explained

    @property
    def _traces(self) -> bool:
        return bool(
            self.aside
            or self.waits_for
            or self.awaited_by
            or self.notifications
            or self.taken_down
            or self.purges
            or self.own_drops
            or self.letters
            or any(fetch.key == self.subject for fetch in self.author.network.fetches)
            or any(counter.stored is not None for counter in self.counters)
        )

    @property
    def own_drops(self) -> list[Dropped]:
        """Drops of the subject itself, not of whole commits of its author."""
        return [drop for drop in self.drops if drop.subject != self.author.did or self._is_account]

    @property
    def _is_account(self) -> bool:
        return self.subject == self.author.did

    def _kept_out(self) -> str | None:
        """Why nothing of this author is stored, if so."""
        author = self.author
        if author.opted_out:
            return "has forbidden the collection of data"
        if author.taken_down:
            return "is taken down"
        return None if author.status is None else f"is {author.status}"

    def verdict(self) -> str:
        """The answer in one sentence."""
        for purge in self.purges:
            return f"what is stored of it is being removed ({purge.reason})"
        kept_out = self._kept_out()
        if self._is_account and kept_out is not None:
            return f"an account that {kept_out}"
        if self._is_account:
            return "the index knows this account" if self.known else "nothing is known of it"
        if self.row is not None:
            return f"indexed in {self.row.table}"
        if self.aside is not None:
            return f"a duplicate, kept aside: {self.aside.holder or 'another record'} stands for it"
        return f"not indexed: {self._why_not()}"

    def _why_not(self) -> str:
        """The likeliest reason, those that are certain first."""
        if self.taken_down:
            return "it is taken down"
        kept_out = self._kept_out()
        if kept_out is not None:
            return f"its author {kept_out}"
        if self.letters:
            return f"it is in the dead letters ({self.letters[0].reason})"
        for drop in self.own_drops:
            return f"dropped, {drop.reason}" + (f" ({drop.detail})" if drop.detail else "")
        for drop in self.drops:
            return f"it may have been in a commit that was dropped, {drop.reason} ({drop.detail})"
        on_its_way = self._on_its_way()
        if on_its_way is not None:
            return on_its_way
        if self.author.network.left_out:
            return "its author is none of those whom this index is of"
        if self.author.repository is None:
            return "no commit of its author has come"
        if self.author.repository.out_of_step:
            return "its author's repository is out of step, so it may have been missed; or deleted"
        return "it was deleted, never came, or its drop is no longer remembered"

    def _on_its_way(self) -> str | None:
        """What the record waits for before it can be indexed, if it may be on its way."""
        network = self.author.network
        for fetch in network.fetches:
            if fetch.key == self.subject and fetch.kind == "record":
                tries = f"{fetch.attempts} attempts, {fetch.reason or 'not tried yet'}"
                given_up = "could not be fetched" if fetch.state == "failed" else "to be fetched"
                return f"{given_up} ({tries})"
        if network.parking is None:
            return None
        what = {
            "resync": "its author's repository is fetched",
            "no_key": "its author's key is known",
            "wrong_key": "its author's key is looked up again",
        }
        waits = f"{network.parking.events} events wait until {what[network.parking.reason]}"
        return f"it may be among those that wait: {waits}"
