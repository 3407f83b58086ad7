"""What a planned batch means for others: who waits, what is judged, of what the registry and the
notifier must hear. Pure, no SQL.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from actors.messages import NotifierWork, RegistryWork, Unverified
from actors.records import RECORDS
from actors.records.fields import owner
from actors.records.record import Row
from actors.store.plan import Flip, Plan, TablePlan
from engine.message import Codec

REGISTRY: Final = "pending"
NOTIFIER: Final = "notifier"
# A uri has at most 2,000 bytes, and a message must fit in its window.
URIS_IN_A_MESSAGE: Final = 2_000

_NOTIFYING: Final = frozenset(("posts", "likes", "reposts", "follows", "verifications", "users"))
_WAITING: Final = frozenset(("posts", "likes", "reposts", "users"))
# What other records may wait for, or were told of.
_SUBJECTS: Final = frozenset(
    (
        "posts",
        "reposts",
        "feed_generators",
        "labeler_services",
        "lists",
        "starter_packs",
        "generic_records",
    )
)
_TABLES: Final = {
    collection: type_.table for collection, type_ in RECORDS.items() if type_.table in _SUBJECTS
}
_GATES: Final = frozenset(("thread_gates", "post_gates"))
# One reason each, so that a subject that is missing leaves nothing to tell of.
_WAITS_FOR_ALL: Final = frozenset(("likes", "reposts", "users"))

_codec = Codec((RegistryWork, NotifierWork))


class Entry(NamedTuple):
    """An entry of the registry: the record, the subject it awaits, its author, what for."""

    uri: str
    awaited: str
    author: str
    kind: str


Work = list[tuple[str, bytes]]


@dataclass(slots=True)
class Consequences:
    """What follows from a batch.

    `entries` are what would wait (those whose subject is indexed do not), `cancelled` the records
    whose entries go, `judge` the posts whose flags are to be judged. The rest is named as in
    `RegistryWork` and `NotifierWork`.
    """

    entries: list[Entry] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    judge: list[str] = field(default_factory=list)
    records: dict[str, bool] = field(default_factory=dict)
    past: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gates: list[str] = field(default_factory=list)
    unverified: list[Unverified] = field(default_factory=list)
    waiting: dict[str, None] = field(default_factory=dict)
    purged: list[str] = field(default_factory=list)

    def entries_by_table(self) -> dict[str, list[Entry]]:
        """Return the entries by the table in which their subject would be."""
        by_table: dict[str, list[Entry]] = {}
        for entry in self.entries:
            table = _TABLES.get(entry.awaited.split("/", 4)[3], "generic_records")
            by_table.setdefault(table, []).append(entry)
        return by_table

    def claimed(self, uri: str, kind: str) -> None:
        """Take in an entry whose subject has come: what the record tells is computed again.

        With an ancestor of a post come those of the replies below it.
        """
        if kind == "reply":
            self.extended.append(uri)
        else:
            self.records[uri] = False

    def missing(self, rows: Sequence[tuple[str, str]]) -> None:
        """Take in which entries were made (uri, awaited): their subject is not there.

        Who waits for all that it could tell of is not computed now.
        """
        waits = Counter(uri for uri, _awaited in rows)
        self.waiting.update((awaited, None) for _uri, awaited in rows)
        wanted = Counter(entry.uri for entry in self.entries)
        for uri, amount in waits.items():
            if self.records.get(uri) and wanted[uri] == amount:
                del self.records[uri]

    def judged(self, flips: Sequence[Flip], *, again: bool) -> None:
        """Take in judgements that changed; `again` where the posts were there before."""
        for flip in flips:
            if flip.invalid != flip.was_invalid:
                self.changed.append(flip.uri)
            if again:
                self.judge.append(flip.uri)
                if (flip.gated, flip.embeds) != (flip.was_gated, flip.was_embeds):
                    self.extended.append(flip.uri)

    def work(self) -> Work:
        """Return the outbox work: receiver and body of each message."""
        work: Work = []
        registry = {
            "waiting": self.waiting,
            "arrived": self.arrived,
            "changed": self.changed,
            "gates": self.gates,
            "judge": self.judge,
        }
        for part in _parts(registry):
            work.append((REGISTRY, _codec.encode(RegistryWork(**part))))
        notifier: dict[str, Iterable[Any]] = {
            "records": self.records,
            "past": self.past,
            "fresh": self.fresh,
            "gone": self.gone,
            "extended": self.extended,
            "unverified": self.unverified,
            "purged": self.purged,
        }
        for part in _parts(notifier):
            work.append((NOTIFIER, _codec.encode(NotifierWork(**part))))
        return work


def _parts(fields: Mapping[str, Iterable[Any]]) -> Iterator[dict[str, tuple[Any, ...]]]:
    """Cut fields into as many messages as they need; none for nothing."""
    room = URIS_IN_A_MESSAGE
    part: dict[str, tuple[Any, ...]] = {}
    for name, of_field in fields.items():
        values = tuple(of_field)
        at = 0
        while at < len(values):
            part[name] = values[at : at + room]
            at += len(part[name])
            room -= len(part[name])
            if room == 0:
                yield part
                part, room = {}, URIS_IN_A_MESSAGE
    if part:
        yield part


def record_uri(table: str, key: str) -> str:
    """Return the uri of a record from its table and key."""
    return f"at://{key}/app.bsky.actor.profile/self" if table == "users" else key


def consequences(plan: Plan, subscribed: set[str]) -> Consequences:
    """Return what follows from a plan; `subscribed` are authors whose posts somebody is told of."""
    found = Consequences()
    for name, table in plan.tables.items():
        if name in _GATES:
            found.gates += {*table.delete, *(str(row.values[0]) for row in table.put)}
        elif name in _NOTIFYING or name in _SUBJECTS:
            _of_table(found, plan, name, table, subscribed)
    for uri, (issuer, subject, time) in plan.unverified.items():
        found.unverified.append(Unverified(uri, issuer, subject, time))
    return found


def _of_table(
    found: Consequences, plan: Plan, name: str, table: TablePlan, subscribed: set[str]
) -> None:
    removed = plan.removed.get(name, {})
    put = {str(row.values[0]): row for row in table.put}
    if name in _WAITING:
        found.cancelled += (record_uri(name, key) for key in removed)
    found.gone += sorted({*removed, *table.delete} - put.keys())
    if name == "posts":
        found.changed += sorted(removed)
    for key, row in put.items():
        _of_row(found, name, key, row, replaced=key in removed, subscribed=subscribed)


def _of_row(
    found: Consequences,
    name: str,
    key: str,
    row: Row,
    *,
    replaced: bool,
    subscribed: set[str],
) -> None:
    uri = record_uri(name, key)
    if not replaced and name in _SUBJECTS:
        found.arrived.append(uri)
    if row.waits:
        author = owner(uri)
        found.entries += (Entry(uri, wait.awaited, author, wait.kind) for wait in row.waits)
    if name == "posts":
        if row.waits:
            found.judge.append(uri)
        fresh = not replaced and not row.past and row.basis[0] in subscribed
        if fresh:
            found.fresh.append(uri)
        if replaced:
            found.extended.append(uri)
        elif fresh or (row.notifies and not row.past):
            found.records[uri] = False
    elif name == "verifications" and row.past:
        # Nothing in its row says so, as it does in others'.
        found.past.append(uri)
    elif name in _NOTIFYING and (replaced or (row.notifies and not row.past)):
        # True: nothing of it can be told while all that it waits for is missing.
        found.records[uri] = name in _WAITS_FOR_ALL and not replaced and bool(row.waits)
