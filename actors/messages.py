"""What the actors say to each other: every message type of the system, one struct each.

Messages are encoded with msgpack and carry raw frames as bytes, never re-encoded. A message that
holds several independent pieces says in `split` how it falls apart, so that a window that kills its
receiver can be delivered again piece by piece (see "Poison" in engine/README.md).
"""

from collections.abc import Sequence

from engine.message import Message


class Frames(Message, frozen=True):
    """A run of firehose frames of one shard's DIDs, in the order of the stream.

    From ingest to a shard. `host` names the upstream whose sequence numbers the frames carry.
    """

    host: str
    frames: list[bytes]

    def split(self) -> Sequence[Message]:
        """Return one message for each frame."""
        if len(self.frames) == 1:
            return (self,)
        return [Frames(self.host, [frame]) for frame in self.frames]


class EnsureUsers(Message, frozen=True):
    """A shard asks the user gate for `users` rows before it commits."""

    dids: list[str]


class UsersEnsured(Message, frozen=True):
    """The user gate's answer: every DID asked for has its row, durably; `created` are new."""

    created: int


class OutboxWork(Message, frozen=True):
    """A row of `engine_outbox`, sent along so that its receiver need not read it.

    `number` counts the work of one sender generation for one receiver from 1 without gaps: a
    receiver that sees a gap first does what is left in the table.
    """

    row: int
    number: int
    body: bytes


class SweepOutbox(Message, frozen=True):
    """Work was left in `engine_outbox` that could not be sent along: do what is there."""


class CreateUsers(Message, frozen=True):
    """Body of the user gate's outbox work: DIDs that need a `users` row."""

    dids: list[str]


class RegistryWork(Message, frozen=True, kw_only=True):
    """Body of the registry's outbox work: what changed that waits or judgements may rest on.

    `waiting`: subjects that entries of the batch wait for. `arrived`: record uris that are indexed
    since the batch and were not before. `changed`: posts that were there and were replaced or went,
    or whose validity changed. `gates`: posts whose thread gate or post gate came, changed or went.
    `judge`: replies and quotes whose flags were written.
    """

    waiting: tuple[str, ...] = ()
    arrived: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()


class Unverified(Message, frozen=True):
    """A verification record that its issuer deleted; `time` in microseconds since 1970."""

    uri: str
    issuer: str
    subject: str
    time: int


class NotifierWork(Message, frozen=True, kw_only=True):
    """Body of the notifier's outbox work: uris of records whose notifications may have changed.

    `records`: those to compute (again). `past`: the same, but nobody is told of them who was not
    before. `fresh`: posts among `records` that are new, of which subscribers are told. `gone`:
    records that are indexed no more, with what was notified of them and because of them.
    `extended`: posts whose ancestors or flags changed; replies below are computed too. `purged`:
    DIDs whose records are all gone.
    """

    records: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    unverified: tuple[Unverified, ...] = ()
    purged: tuple[str, ...] = ()


class Settle(Message, frozen=True):
    """The registry tells the shard of the authors: claim these entries, judge these posts.

    `claims` are pairs of an entry's uri and what it awaited.
    """

    claims: list[tuple[str, str]]
    judge: list[str]


class FetchedRecord(Message, frozen=True):
    """One record that the fetcher has from its repository, with its proof checked.

    `rev` is the repository's at that moment, `path` collection and record key, `record` the block,
    None where the repository proves that there is no such record.
    """

    did: str
    rev: str
    path: str
    cid: bytes | None
    record: bytes | None


class ResyncBegins(Message, frozen=True):
    """A repository is fetched whole from now on: its live commits wait until that has ended."""

    did: str


class RepoRecord(Message, frozen=True):
    """A record of a repository file: collection and record key, CID, block."""

    path: str
    cid: bytes
    record: bytes


class RepoSlice(Message, frozen=True):
    """All records of a repository whose paths lie above `after` and not above `until`, in order.

    What is indexed in that range and not among them is there no more. `until` is None for the last
    slice, `after` empty for the first.
    """

    did: str
    rev: str
    after: str
    until: str | None
    records: list[RepoRecord]


class ResyncEnds(Message, frozen=True):
    """All slices of a repository were sent; `rev` and `data` are its state. None: it failed, and
    what is indexed of it stays out of step.
    """

    did: str
    rev: str | None
    data: bytes | None


class WholeRepo(Message, frozen=True):
    """All records of a small repository at a revision, in the order of their paths."""

    did: str
    rev: str
    data: bytes
    records: list[RepoRecord]


class WholeRepos(Message, frozen=True):
    """Small repositories that were fetched whole while their live commits went on: each is applied
    at once, unless something newer is indexed by now.
    """

    repos: list[WholeRepo]

    def split(self) -> Sequence[Message]:
        """Return one message for each repository."""
        if len(self.repos) == 1:
            return (self,)
        return [WholeRepos([repo]) for repo in self.repos]


MESSAGES: tuple[type[Message], ...] = (
    Frames,
    EnsureUsers,
    UsersEnsured,
    OutboxWork,
    SweepOutbox,
    CreateUsers,
    RegistryWork,
    NotifierWork,
    Settle,
    FetchedRecord,
    ResyncBegins,
    RepoSlice,
    ResyncEnds,
    WholeRepos,
)
