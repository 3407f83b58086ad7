"""What the tables of an existing AppView have to be told once: new columns of old rows, and the
aggregates that the engine counts on.

In slices, each a transaction of its own, so that nobody waits long and a kill loses one slice; what
is filled already is passed over, so that a second start goes on where the first one ended.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import structlog
from psycopg import Connection, sql

from actors.records.verification import VERIFICATION
from actors.store.schema import TABLES

log = structlog.get_logger()

SLICE_ROWS: Final = 20_000
_TOLD_EVERY_SECONDS: Final = 10.0

# Called after each slice with the name of what is filled and the rows it has come to.
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Fill:
    """One thing to fill: rows of `table` (alias d) where `lacking` holds, sliced by `column`."""

    name: str
    table: str
    column: str
    lacking: LiteralString
    statement: LiteralString
    names: dict[str, str] = field(default_factory=dict)


COLUMNS: Final = (
    Fill(
        "issuers of verifications",
        "verifications",
        "uri",
        "d.issuer_did IS NULL AND starts_with(d.uri, 'at://')",
        "UPDATE verifications d SET issuer_did = split_part(d.uri, '/', 3) WHERE {rows}",
    ),
    Fill(
        # No `allow` would mean everybody, which is not what a gate with old columns says. The
        # engine writes no gate without hidden replies, so a gate without them is an old one.
        "rules of thread gates",
        "thread_gates",
        "post_uri",
        "d.allow IS NULL AND d.hidden_replies IS NULL",
        """
        UPDATE thread_gates d SET hidden_replies = '[]', allow =
            CASE WHEN d.allow_mentions
                 THEN '[{{"$type": "app.bsky.feed.threadgate#mentionRule"}}]'::jsonb
                 ELSE '[]' END
            || CASE WHEN d.allow_following
                 THEN '[{{"$type": "app.bsky.feed.threadgate#followingRule"}}]'::jsonb
                 ELSE '[]' END
            || CASE WHEN d.allow_list_members AND jsonb_typeof(d.allow_list_uris) = 'array'
                 THEN coalesce((
                     SELECT jsonb_agg(jsonb_build_object(
                         '$type', 'app.bsky.feed.threadgate#listRule', 'list', l) ORDER BY position)
                     FROM jsonb_array_elements(d.allow_list_uris) WITH ORDINALITY a (l, position)
                     WHERE jsonb_typeof(l) = 'string'), '[]')
                 ELSE '[]' END
        WHERE {rows}
        """,
    ),
    Fill(
        "records of notifications",
        "notifications",
        "id",
        "d.engine_record_uri IS NULL AND starts_with(d.uri, 'at://')",
        "UPDATE notifications d SET engine_record_uri = split_part(d.uri, '#', 1) WHERE {rows}",
    ),
)

# Only of profiles that are older than the engine: of others it knows the first version, and what a
# later one names is none of theirs. Nobody knows what the older ones named first, and what they
# name now is what they have told of.
PROFILES: Final = (
    Fill(
        "packs that users joined by",
        "users",
        "did",
        """
        d.engine_joined_via IS NULL
        AND d.profile_record #>> ARRAY['joinedViaStarterPack', 'uri']
            LIKE 'at://did:%/app.bsky.graph.starterpack/%'
        AND octet_length(d.profile_record #>> ARRAY['joinedViaStarterPack', 'uri']) <= 2000
        """,
        """
        UPDATE users d SET engine_joined_via =
            d.profile_record #>> ARRAY['joinedViaStarterPack', 'uri'] WHERE {rows}
        """,
    ),
)

_IS_POST: Final = "split_part(d.{column}, '/', 4) = 'app.bsky.feed.post'"
_IS_NO_POST: Final = "split_part(d.{column}, '/', 4) <> 'app.bsky.feed.post'"
_NO_POST_COUNTS: Final = (
    _IS_POST + " AND NOT EXISTS (SELECT FROM post_aggregations a WHERE a.post_uri = d.{column})"
)
_NO_SUBJECT_COUNTS: Final = (
    _IS_NO_POST
    + " AND NOT EXISTS (SELECT FROM engine_subject_aggregations a WHERE a.uri = d.{column})"
)
_NO_USER_COUNTS: Final = (
    "NOT EXISTS (SELECT FROM engine_user_aggregations a WHERE a.did = d.{column})"
)
_POST_COUNTS: Final = """
    INSERT INTO post_aggregations
        (post_uri, like_count, repost_count, reply_count, bookmark_count, quote_count, created_at)
    SELECT s.key,
        (SELECT count(*) FROM likes r WHERE r.post_uri = s.key),
        (SELECT count(*) FROM reposts r WHERE r.post_uri = s.key),
        (SELECT count(*) FROM posts r WHERE r.parent_uri = s.key AND NOT r.violates_thread_gate),
        (SELECT count(*) FROM bookmarks r WHERE r.post_uri = s.key),
        (SELECT count(*) FROM quotes r WHERE r.quoted_uri = s.key AND NOT EXISTS (
            SELECT FROM posts p WHERE p.uri = r.post_uri AND p.violates_embedding_rules)),
        coalesce((SELECT p.created_at FROM posts p WHERE p.uri = s.key), 'epoch')
    FROM (SELECT DISTINCT d.{column} AS key FROM {table} d WHERE {rows}) s
    ON CONFLICT DO NOTHING
"""
_SUBJECT_COUNTS: Final = """
    INSERT INTO engine_subject_aggregations (uri, like_count)
    SELECT s.key, (SELECT count(*) FROM likes r WHERE r.post_uri = s.key)
    FROM (SELECT DISTINCT d.{column} AS key FROM {table} d WHERE {rows}) s
    ON CONFLICT DO NOTHING
"""
_USER_COUNTS: Final = """
    INSERT INTO engine_user_aggregations (did, followers_count, follows_count, posts_count)
    SELECT s.key,
        (SELECT count(*) FROM follows r WHERE r.following_did = s.key),
        (SELECT count(*) FROM follows r WHERE r.follower_did = s.key),
        (SELECT count(*) FROM posts r WHERE r.author_did = s.key)
    FROM (SELECT DISTINCT d.{column} AS key FROM {table} d WHERE {rows}) s
    ON CONFLICT DO NOTHING
"""
_COUNTED: Final[tuple[tuple[str, str, LiteralString, LiteralString], ...]] = (
    ("posts", "uri", _NO_POST_COUNTS, _POST_COUNTS),
    ("posts", "parent_uri", _NO_POST_COUNTS, _POST_COUNTS),
    ("likes", "post_uri", _NO_POST_COUNTS, _POST_COUNTS),
    ("reposts", "post_uri", _NO_POST_COUNTS, _POST_COUNTS),
    ("bookmarks", "post_uri", _NO_POST_COUNTS, _POST_COUNTS),
    ("quotes", "quoted_uri", _NO_POST_COUNTS, _POST_COUNTS),
    ("likes", "post_uri", _NO_SUBJECT_COUNTS, _SUBJECT_COUNTS),
    ("feed_generators", "uri", _NO_SUBJECT_COUNTS, _SUBJECT_COUNTS),
    ("labeler_services", "uri", _NO_SUBJECT_COUNTS, _SUBJECT_COUNTS),
    ("follows", "following_did", _NO_USER_COUNTS, _USER_COUNTS),
    ("follows", "follower_did", _NO_USER_COUNTS, _USER_COUNTS),
    ("posts", "author_did", _NO_USER_COUNTS, _USER_COUNTS),
)
_KINDS: Final = {_POST_COUNTS: "posts", _SUBJECT_COUNTS: "other subjects", _USER_COUNTS: "users"}
AGGREGATES: Final = tuple(
    Fill(
        f"counts of {_KINDS[statement]} in {table}.{column}",
        table,
        column,
        lacking,
        statement,
        {"table": table, "column": column},
    )
    for table, column, lacking, statement in _COUNTED
)

_RANKED: Final = sql.SQL("""
    SELECT v.uri, row_number() OVER (
        PARTITION BY split_part(v.uri, '/', 3), v.subject_did ORDER BY v.uri COLLATE "C") AS place
    FROM verifications v
""")


def fill(
    connection: Connection[Any],
    fills: tuple[Fill, ...],
    *,
    slice_rows: int = SLICE_ROWS,
    progress: Progress | None = None,
) -> int:
    """Fill what is lacking; returns the number of rows written.

    Where nothing is lacking, nothing is written and no right is needed but to read. The connection
    must be in autocommit mode.
    """
    total = 0
    for one in fills:
        if not _any_lacking(connection, one):
            continue
        log.info("filling what an older program left out", what=one.name)
        done = 0
        told = time.monotonic()
        for condition in _slices(connection, one, slice_rows):
            rows = sql.SQL("{} AND {}").format(condition, _lacking(one))
            statement = sql.SQL(one.statement).format(rows=rows, **_names(one))
            done += connection.execute(statement, prepare=False).rowcount
            if progress is not None:
                progress(one.name, done)
            if time.monotonic() - told > _TOLD_EVERY_SECONDS:
                told = time.monotonic()
                log.info("filling", what=one.name, rows=done)
        log.info("filled", what=one.name, rows=done)
        total += done
    return total


def set_aside_verifications(connection: Connection[Any]) -> int:
    """Keep aside every verification but the lowest of an issuer and a subject; returns how many.

    Nothing has kept such rows out so far, and the unique key of the two could not be made.
    """
    some = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM ({}) r WHERE r.place > 1)").format(_RANKED)
    ).fetchone()
    if some is None or not some[0]:
        return 0
    pairs = [part for name in VERIFICATION.columns for part in (sql.Literal(name), _packed(name))]
    number = connection.execute(
        sql.SQL("""
            WITH gone AS (
                DELETE FROM verifications v USING ({ranked}) r
                WHERE r.uri = v.uri AND r.place > 1 RETURNING v.*
            )
            INSERT INTO engine_duplicates (uri, table_name, thing, cid, body)
            SELECT g.uri, 'verifications', split_part(g.uri, '/', 3) || ' ' || g.subject_did,
                g.cid, jsonb_build_object({pairs})
            FROM gone g ON CONFLICT (uri) DO NOTHING
        """).format(ranked=_RANKED, pairs=sql.SQL(", ").join(pairs)),
        prepare=False,
    ).rowcount
    log.info("verifications of one subject by one issuer are kept as duplicates", number=number)
    return number


def _packed(column: str) -> sql.Composable:
    """The value of a column as rows that are kept aside hold it: times as microseconds."""
    if column == "issuer_did":
        return sql.SQL("split_part(g.uri, '/', 3)")
    value = sql.Identifier("g", column)
    if TABLES["verifications"].type_of(column) == "timestamp":
        return sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint").format(value)
    return value


def _names(one: Fill) -> dict[str, sql.Identifier]:
    return {placeholder: sql.Identifier(name) for placeholder, name in one.names.items()}


def _lacking(one: Fill) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(one.lacking).format(**_names(one)))


def _any_lacking(connection: Connection[Any], one: Fill) -> bool:
    row = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} d WHERE {})").format(
            sql.Identifier(one.table), _lacking(one)
        ),
        prepare=False,
    ).fetchone()
    return row is not None and bool(row[0])


def _slices(connection: Connection[Any], one: Fill, slice_rows: int) -> Iterator[sql.Composable]:
    """Conditions that cut the table into ranges of the column, in the column's own order."""
    table, column = sql.Identifier(one.table), sql.Identifier("d", one.column)
    above: sql.Composable = sql.SQL("{} IS NOT NULL").format(column)
    while True:
        row = connection.execute(
            sql.SQL("SELECT {} FROM {} d WHERE {} ORDER BY 1 OFFSET {} LIMIT 1").format(
                column, table, above, slice_rows - 1
            ),
            prepare=False,
        ).fetchone()
        if row is None:
            yield above
            return
        yield sql.SQL("{} AND {} <= {}").format(above, column, row[0])
        above = sql.SQL("{} > {}").format(column, row[0])
