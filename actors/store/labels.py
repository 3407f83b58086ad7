"""The writer of labels that come from labelers: a batch is one transaction, cursors included.

Whoever pushes labels to clients listens on the channel `skyshard_labels` of this database: each
transaction in which labels began or ceased to hold says `<first> <last>`, the ids of its rows in
`label_events`, in text. A listener that was away looks for ids above the last one it has seen.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.atproto.label import VERSION, Label, Refusal
from actors.store.arrays import array, text_array
from actors.store.fence import CHECK_SQL, LOCK_SQL, Fence
from actors.store.labelling import DELETED, Held, meet
from actors.store.limits import read_limits

CHANNEL: Final = "skyshard_labels"

_HELD_SQL: Final = (
    "SELECT uri, (extract(epoch FROM created_at) * 1000000)::bigint, NOT neg, sig,"
    " (extract(epoch FROM engine_expires) * 1000000)::bigint"
    " FROM labels WHERE uri = ANY(%b::text[]) ORDER BY uri FOR UPDATE"
)
# Labels of these accounts are neither wanted nor kept: a purge may be under way.
WITHHELD_SQL: Final = (
    "SELECT i.did FROM unnest(%b::text[]) AS i (did)"
    " WHERE EXISTS (SELECT FROM engine_takedowns t WHERE t.subject = i.did)"
    " OR EXISTS (SELECT FROM engine_purges p WHERE p.subject = i.did)"
    " OR EXISTS (SELECT FROM engine_accounts a WHERE a.did = i.did AND NOT a.active)"
    " OR EXISTS (SELECT FROM user_settings s"
    " WHERE s.user_did = i.did AND s.data_collection_forbidden)"
)
_REFUSED_SQL: Final = "SELECT subject FROM engine_takedowns WHERE subject = ANY(%b::text[])"
_COLUMNS: Final = {
    "uri": "text",
    "src": "text",
    "subject": "text",
    "val": "text",
    "neg": "boolean",
    "created_at": "timestamp",
    "cid": "text",
    "cts": "text",
    "exp": "text",
    "sig": "bytea",
    "ver": "integer",
    "engine_expires": "timestamp",
}
_PUT_SQL: Final = (
    f"INSERT INTO labels ({', '.join(_COLUMNS)})"  # noqa: S608 - it is made of constants
    f" SELECT * FROM unnest({', '.join(f'%b::{type_}[]' for type_ in _COLUMNS.values())})"
    " ON CONFLICT (uri) DO UPDATE SET"
    f" {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS if name != 'uri')},"
    " indexed_at = now()"
)
_EVENTS_SQL: Final = (
    "INSERT INTO label_events (label_uri, action)"
    " SELECT i.uri, i.action FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY"
    " AS i (uri, action, number) ORDER BY i.number RETURNING id"
)
_NOTIFY_SQL: Final = "SELECT pg_notify(%s, %s)"
# A cursor is moved from where its reader has begun and from nowhere else: what was removed of an
# account sets it back, and then all that follows is read again.
_CURSORS_SQL: Final = (
    "UPDATE engine_labelers l SET cursor = i.seq, problem = NULL, updated_at = now()"
    " FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bigint[])"
    " AS i (did, endpoint, after, seq)"
    " WHERE l.did = i.did AND l.endpoint = i.endpoint AND l.cursor IS NOT DISTINCT FROM i.after"
    " RETURNING l.did"
)
_EXPIRE_SQL: Final = (
    "UPDATE labels SET neg = true, indexed_at = now() WHERE uri IN ("
    "SELECT uri FROM labels WHERE engine_expires IS NOT NULL AND NOT neg"
    " AND engine_expires <= timestamp 'epoch' + %s * interval '1 us'"
    " ORDER BY engine_expires LIMIT %s FOR UPDATE) RETURNING uri"
)


class Cursor(NamedTuple):
    """A labeler has been read from one place (None: the beginning) to another, by the numbers of an
    endpoint.
    """

    endpoint: str
    after: int | None
    seq: int


@dataclass(slots=True)
class LabelBatch:
    """Labels in the order in which they came, with signatures that hold, and how far their
    labelers have been read with them.
    """

    labels: list[Label] = field(default_factory=list)
    cursors: dict[str, Cursor] = field(default_factory=dict)


@dataclass(slots=True)
class Written:
    """What became of a batch. `outcomes` as in `Effects`. `stuck` are labelers whose cursors were
    not moved: what is in the table is not where they were read from, or they are `withheld`.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[Refusal] = field(default_factory=Counter)
    withheld: frozenset[str] = frozenset()
    stuck: frozenset[str] = frozenset()
    events: int = 0


class LabelWriter:
    """Writes labels on one connection, which is in autocommit mode and belongs to nobody else.

    `crash_point` is called with a name where a crash must be survived.
    """

    def __init__(
        self,
        connection: Connection[Any],
        fence: Fence,
        *,
        crash_point: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._crash_point = crash_point
        self._limits = read_limits(connection)

    def write(self, batch: LabelBatch, now: int) -> Written:
        """Apply labels at `now` (microseconds since 1970), and move the cursors, or do neither.

        Raises Fenced when this actor has been replaced, and what PostgreSQL answers.
        """
        written = Written()
        keyed = [(label.row_uri, label) for label in batch.labels]
        with self._connection.transaction():
            held, refused = self._look(batch, keyed, written)
            taken = [
                (uri, label)
                for uri, label in keyed
                if self._takes(uri, label, refused, written) is None
            ]
            effects = meet(taken, held, now)
            written.outcomes = effects.outcomes
            written.events = len(effects.events)
            self._put(effects.rows)
            self._crash_point("written")
            self._tell(effects.events)
            written.stuck = self._move(batch.cursors, written.withheld)
            self._crash_point("before_commit")
        self._crash_point("after_commit")
        return written

    def expire(self, now: int, limit: int) -> int:
        """Take back some of the labels that have expired, and tell of it; returns how many."""
        with self._connection.transaction():
            self._fence.check(self._connection)
            rows = self._connection.execute(_EXPIRE_SQL, [now, limit]).fetchall()
            self._tell([(uri, DELETED) for (uri,) in rows])
            if rows:
                self._crash_point("expired")
        return len(rows)

    def _look(
        self, batch: LabelBatch, keyed: Sequence[tuple[str, Label]], written: Written
    ) -> tuple[Mapping[str, Held], set[str]]:
        """The rows that the labels meet, and uris of rows that the operator refuses."""
        connection = self._connection
        uris = text_array(sorted({uri for uri, _ in keyed}))
        sources = {label.src for _, label in keyed} | batch.cursors.keys()
        with connection.pipeline():
            connection.execute(LOCK_SQL)
            fence = connection.execute(CHECK_SQL, [self._fence.actor])
            withheld = connection.execute(WITHHELD_SQL, [text_array(sorted(sources))])
            refused = connection.execute(_REFUSED_SQL, [uris])
            held = connection.execute(_HELD_SQL, [uris])
        self._fence.demand(fence.fetchone())
        written.withheld = frozenset(did for (did,) in withheld.fetchall())
        return {uri: Held(*row) for uri, *row in held.fetchall()}, {
            u for (u,) in refused.fetchall()
        }

    def _takes(self, uri: str, label: Label, refused: set[str], written: Written) -> Refusal | None:
        """Why a label is not taken, counted; None where it is."""
        reason = None
        fits = self._limits.fits
        if label.src in written.withheld:
            reason = Refusal.SOURCE_WITHHELD
        elif uri in refused:
            reason = Refusal.TAKEN_DOWN
        elif not fits("labels", "subject", label.uri):
            reason = Refusal.SUBJECT_TOO_LONG
        elif not (fits("labels", "src", label.src) and fits("labels", "val", label.val)):
            reason = Refusal.DATABASE_REFUSED
        if reason is not None:
            written.refused[reason] += 1
        return reason

    def _put(self, rows: Mapping[str, tuple[Label, Held]]) -> None:
        if not rows:
            return
        values = [
            (
                uri,
                label.src,
                label.uri,
                label.val,
                not held.active,
                label.created,
                label.cid,
                label.cts,
                label.exp,
                label.sig,
                VERSION,
                held.expires,
            )
            for uri, (label, held) in sorted(rows.items())
        ]
        columns = zip(*values, strict=True)
        self._connection.execute(
            _PUT_SQL,
            [
                array(type_, column)
                for type_, column in zip(_COLUMNS.values(), columns, strict=True)
            ],
        )

    def _tell(self, events: Sequence[tuple[str, str]]) -> None:
        if not events:
            return
        uris, actions = zip(*events, strict=True)
        ids = [
            number
            for (number,) in self._connection.execute(
                _EVENTS_SQL, [text_array(uris), text_array(actions)]
            ).fetchall()
        ]
        self._connection.execute(_NOTIFY_SQL, [CHANNEL, f"{min(ids)} {max(ids)}"])

    def _move(self, cursors: Mapping[str, Cursor], withheld: frozenset[str]) -> frozenset[str]:
        """Move cursors; returns those that were not."""
        moved = [(did, *cursor) for did, cursor in sorted(cursors.items()) if did not in withheld]
        if not moved:
            return frozenset(cursors)
        dids, endpoints, afters, seqs = zip(*moved, strict=True)
        rows = self._connection.execute(
            _CURSORS_SQL,
            [
                text_array(dids),
                text_array(endpoints),
                array("bigint", afters),
                array("bigint", seqs),
            ],
        ).fetchall()
        return frozenset(cursors) - {did for (did,) in rows}
