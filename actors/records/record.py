"""What a record type is: how a record becomes a row, and what that row means for other tables.

Everything here is data or a pure function. A row's *basis* is the handful of its columns that the
rest follows from: counts, viewer state, derived rows. It can be had from a new record and, by
`basis_sql`, from a row already in the database; so what an old row meant is taken back by the same
function that says what a new one means.

Times are integers: microseconds since 1970-01-01 UTC. JSON columns are encoded JSON (bytes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]
Value = str | int | bool | bytes | None


class Source(NamedTuple):
    """Where a record stands: its key, its CID (text), and the commit that brought it."""

    uri: str
    did: str
    rkey: str
    cid: str
    commit_time: int
    commit_seq: str | None
    commit_rev: str


class AggregateTable(NamedTuple):
    """A table of counters that several shards may touch; `columns` are its counters."""

    name: str
    key: str
    columns: tuple[str, ...]
    has_times: bool


POST_COUNTS = AggregateTable(
    "post_aggregations",
    "post_uri",
    ("like_count", "repost_count", "reply_count", "bookmark_count", "quote_count"),
    has_times=True,
)
SUBJECT_COUNTS = AggregateTable(
    "engine_subject_aggregations", "uri", ("like_count",), has_times=False
)
USER_COUNTS = AggregateTable(
    "engine_user_aggregations",
    "did",
    ("followers_count", "follows_count", "posts_count"),
    has_times=False,
)
# Every transaction writes these tables in this order, so that two shards never deadlock.
AGGREGATES = (POST_COUNTS, SUBJECT_COUNTS, USER_COUNTS)


class Counter(NamedTuple):
    """One counter: its table and its position among the table's counters."""

    table: AggregateTable
    position: int


POST_LIKES = Counter(POST_COUNTS, 0)
POST_REPOSTS = Counter(POST_COUNTS, 1)
POST_REPLIES = Counter(POST_COUNTS, 2)
POST_BOOKMARKS = Counter(POST_COUNTS, 3)
POST_QUOTES = Counter(POST_COUNTS, 4)
SUBJECT_LIKES = Counter(SUBJECT_COUNTS, 0)
FOLLOWERS = Counter(USER_COUNTS, 0)
FOLLOWS = Counter(USER_COUNTS, 1)
POSTS = Counter(USER_COUNTS, 2)


class ViewerState(NamedTuple):
    """A column of `post_viewer_states` that a record fills for its author."""

    post_uri: str
    viewer_did: str
    column: str


class Derived(NamedTuple):
    """A row in another table that a record's row brings along, and takes along when it goes."""

    table: str
    values: tuple[Value, ...]


class Effects(NamedTuple):
    """What one row means elsewhere. `touches` are aggregate rows that exist because of it."""

    counts: tuple[tuple[Counter, str], ...] = ()
    touches: tuple[tuple[AggregateTable, str], ...] = ()
    viewer: ViewerState | None = None
    derived: tuple[tuple[str, str], ...] = ()


NO_EFFECTS = Effects()

Basis = tuple[Any, ...]


class Wait(NamedTuple):
    """A subject that a record needs; where it is not indexed, the record waits for it.

    `kind` says what for: it names the entries in `engine_pending`.
    """

    awaited: str
    kind: str


class Row(NamedTuple):
    """A record as its table wants it: values in the order of the type's columns.

    `subjects` are the DIDs that it speaks of, who need a `users` row; `waits` are the records it
    needs to be there; `notifies` says whether somebody may have to be told of it. `past`: it was
    fetched and is no news, so that nobody is told; or, where versions take over from one another,
    it is a later one.
    """

    values: tuple[Value, ...]
    basis: Basis = ()
    derived: tuple[Derived, ...] = ()
    subjects: tuple[str, ...] = ()
    waits: tuple[Wait, ...] = ()
    notifies: bool = False
    past: bool = False


def no_effects(_key: str, _basis: Basis) -> Effects:
    """Effects of a type that counts nowhere."""
    return NO_EFFECTS


def counts_likes(uri: str, _basis: Basis) -> Effects:
    """Effects of a type, other than a post, that has a count of its likes."""
    return Effects(touches=((SUBJECT_COUNTS, uri),))


def rebuilt_from(*positions: int) -> "Callable[[tuple[Value, ...], str], Row]":
    """Return the `rebuild` of a type whose basis is these columns, and that derives nothing."""

    def rebuild(values: tuple[Value, ...], _cid: str) -> Row:
        return Row(values, tuple(values[position] for position in positions))

    return rebuild


def uri_key(uri: str, _did: str, _rkey: str) -> str:
    """Key of most tables: the record's own uri."""
    return uri


@dataclass(frozen=True, slots=True)
class RecordType:
    """A record type: its collection, its table, and the functions that make rows and effects.

    `build` raises Drop. `thing` names the columns that no two rows may share ("two records for one
    thing"); they are then the first entries of the basis, and `rebuild` makes a Row of values that
    were kept aside (values and the record's CID). `only_key` is the one record key that the type
    allows (None allows all). `cleared` makes the row that stays when the record is gone; without it
    the row goes. `carry` makes the row of what a new version takes over from the one before (whose
    basis it gets; None where there was none).
    """

    collection: str
    table: str
    columns: tuple[str, ...]
    build: Callable[[Source, Json], Row]
    basis_sql: tuple[str, ...] = ()
    effects: Callable[[str, Basis], Effects] = no_effects
    key_column: str = "uri"
    key: Callable[[str, str, str], str] = uri_key
    thing: tuple[str, ...] = ()
    rebuild: Callable[[tuple[Value, ...], str], Row] | None = None
    only_key: str | None = None
    cleared: Callable[[str], Row] | None = None
    carry: Callable[[Basis | None, Row], Row] | None = None
