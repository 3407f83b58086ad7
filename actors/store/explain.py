"""Finding out what is known of one record or account: all in one snapshot, nothing is locked.

Every look is by key, or has a bound: it may be asked of a database at work, at night.
"""

from collections.abc import Callable
from typing import Any, Final, LiteralString

from psycopg import Connection, IsolationLevel, sql

from actors.atproto import uri as uris
from actors.records import record_type
from actors.records.record import RecordType
from actors.store import explanation as told
from actors.store.author_range import author_range
from actors.store.drops_kept import as_subject
from actors.store.explain_network import network_of
from actors.store.explain_post import counters_of, thread_of
from actors.store.explanation import Explanation
from actors.store.purge import OWNED
from actors.store.subjects import is_did

# Of each kind of thing no more is shown.
MOST: Final = 20
# An account's rows are counted up to this, table by table.
MOST_RECORDS: Final = 10_000
# The newest dead letters are searched, up to so many and so many bytes.
SEARCHED_LETTERS: Final = 1_000
SEARCHED_BYTES: Final = 256 * 1024 * 1024
SHOWN_LETTERS: Final = 5

_ACCOUNT: Final = """
    SELECT u.handle, u.did IS NOT NULL,
        CASE WHEN NOT a.active THEN coalesce(nullif(a.status, ''), 'inactive') END,
        coalesce((SELECT s.data_collection_forbidden FROM user_settings s
            WHERE s.user_did = i.did), false),
        EXISTS (SELECT FROM engine_takedowns t WHERE t.subject = i.did),
        r.rev, r.out_of_step, r.withheld
    FROM (SELECT %s::text AS did) i LEFT JOIN users u ON u.did = i.did
    LEFT JOIN engine_accounts a ON a.did = i.did LEFT JOIN engine_repos r ON r.did = i.did
"""
_ASIDE: Final = "SELECT table_name, thing FROM engine_duplicates WHERE uri = %s"
_HOLDS_ASIDE: Final = (
    "SELECT uri FROM engine_duplicates WHERE table_name = %s AND thing = %s ORDER BY uri LIMIT %s"
)
_WAITS: Final = "SELECT uri, awaited, kind, created_at FROM engine_pending WHERE"
_NOTIFIED: Final = (
    "SELECT uri, recipient_did, reason, is_read FROM notifications"
    " WHERE engine_record_uri = %s ORDER BY uri LIMIT %s"
)
_PURGES: Final = (
    "SELECT subject, reason, removed, created_at FROM engine_purges WHERE subject = ANY(%s)"
)
_DROPS: Final = "SELECT subject, reason, detail, created_at FROM engine_drops WHERE"
_LETTERS: Final = """
    SELECT l.id, l.reason, l.created_at, l.body FROM (
        SELECT id, sum(length(body)) OVER (ORDER BY id DESC) AS total
        FROM (SELECT id, body FROM engine_dead_letters ORDER BY id DESC LIMIT %(letters)s) n
    ) s JOIN engine_dead_letters l USING (id)
    WHERE s.total <= %(bytes)s AND position(%(did)s::bytea in l.body) > 0
        AND position(%(path)s::bytea in l.body) > 0
    ORDER BY l.id DESC LIMIT %(shown)s
"""


def explain(
    connection: Connection[Any], subject: str, holds: Callable[[bytes], str]
) -> Explanation:
    """Find out all that is known of a uri (with a DID in it) or a DID.

    `holds` says in a line what a dead letter's body holds. The connection must be in autocommit
    mode. Raises psycopg.Error.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = '60s'")
        if is_did(subject):
            return _of_account(connection, subject, holds)
        return _of_record(connection, subject, holds)


def _of_record(connection: Connection[Any], uri: str, holds: Callable[[bytes], str]) -> Explanation:
    parsed = uris.parse(uri)
    did = parsed.authority
    type_ = record_type(parsed.collection)
    row = _row(connection, type_, type_.key(uri, did, parsed.rkey))
    aside = _aside(connection, type_, uri)
    waits = _WAITS + " {} = %s ORDER BY created_at, uri LIMIT %s"
    awaited_by = _rows(connection, waits.format("awaited"), [uri, MOST])
    count = connection.execute(
        "SELECT count(*) FROM engine_pending WHERE awaited = %s", [uri]
    ).fetchone()
    assert count is not None
    taken_down = connection.execute(
        "SELECT 1 FROM engine_takedowns WHERE subject = %s", [uri]
    ).fetchone()
    drops = _rows(
        connection,
        _DROPS + " subject = ANY(%s) ORDER BY id DESC LIMIT %s",
        [[as_subject(uri), as_subject(did)], MOST],
    )
    return Explanation(
        subject=uri,
        author=_account(connection, did, uri),
        row=row,
        aside=aside,
        holds_aside=[] if row is None else _holds_aside(connection, type_, row),
        thread=thread_of(connection, uri) if type_.table == "posts" and row else None,
        counters=counters_of(connection, uri),
        waits_for=[
            told.Wait(*each) for each in _rows(connection, waits.format("uri"), [uri, MOST])
        ],
        awaited_by=[told.Wait(*each) for each in awaited_by],
        awaited_by_count=count[0],
        notifications=[told.Notified(*each) for each in _rows(connection, _NOTIFIED, [uri, MOST])],
        taken_down=taken_down is not None,
        purges=[told.Purge(*each) for each in _rows(connection, _PURGES, [[uri, did]])],
        # Those of the record itself first: those of its author are of whole commits.
        drops=sorted((told.Dropped(*each) for each in drops), key=lambda each: each.subject == did),
        letters=_letters(connection, did, f"{parsed.collection}/{parsed.rkey}", holds),
    )


def _of_account(
    connection: Connection[Any], did: str, holds: Callable[[bytes], str]
) -> Explanation:
    names = {"did": did, "most": MOST}
    below = author_range("uri", "%(did)s")
    of_author = f"{_DROPS} subject = %(did)s OR {author_range('subject', '%(did)s')}"
    return Explanation(
        subject=did,
        author=_account(connection, did, did),
        counters=counters_of(connection, did),
        waits_for=[
            told.Wait(*each)
            for each in _rows(
                connection, f"{_WAITS} {below} ORDER BY created_at, uri LIMIT %(most)s", names
            )
        ],
        purges=[told.Purge(*each) for each in _rows(connection, _PURGES, [[did]])],
        drops=[
            told.Dropped(*each)
            for each in _rows(connection, f"{of_author} ORDER BY id DESC LIMIT %(most)s", names)
        ],
        letters=_letters(connection, did, did, holds),
        records=_records(connection, did),
    )


def _rows(connection: Connection[Any], query: str, parameters: Any) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), parameters).fetchall()


def _row(connection: Connection[Any], type_: RecordType, key: str) -> told.Row | None:
    query: LiteralString = "SELECT to_jsonb(t) - 'search_vector' FROM {} t WHERE {} = %s"
    found = connection.execute(
        sql.SQL(query).format(sql.Identifier(type_.table), sql.Identifier(type_.key_column)), [key]
    ).fetchone()
    if found is None or (type_.table == "users" and found[0]["profile_record"] is None):
        return None
    return told.Row(type_.table, found[0])


def _aside(connection: Connection[Any], type_: RecordType, uri: str) -> told.Aside | None:
    found = connection.execute(_ASIDE, [uri]).fetchone()
    if found is None:
        return None
    table, thing = found
    condition = sql.SQL(" AND ").join(
        sql.SQL("{} = %s").format(sql.Identifier(column)) for column in type_.thing
    )
    holder = connection.execute(
        sql.SQL("SELECT {} FROM {} WHERE ").format(
            sql.Identifier(type_.key_column), sql.Identifier(type_.table)
        )
        + condition,
        thing.split(" "),
    ).fetchone()
    return told.Aside(uri, table, thing, None if holder is None else holder[0])


def _holds_aside(connection: Connection[Any], type_: RecordType, row: told.Row) -> list[str]:
    if not type_.thing:
        return []
    thing = " ".join(str(row.values[column]) for column in type_.thing)
    found = connection.execute(_HOLDS_ASIDE, [type_.table, thing, MOST]).fetchall()
    return [uri for (uri,) in found]


def _account(connection: Connection[Any], did: str, subject: str) -> told.Account:
    found = connection.execute(_ACCOUNT, [did]).fetchone()
    assert found is not None
    handle, has_row, status, opted_out, taken_down, rev, out_of_step, withheld = found
    repository = None if rev is None else told.Repository(rev, out_of_step, withheld)
    network = network_of(connection, did, subject)
    return told.Account(did, handle, has_row, status, opted_out, taken_down, repository, network)


def _letters(
    connection: Connection[Any], did: str, path: str, holds: Callable[[bytes], str]
) -> list[told.Letter]:
    found = connection.execute(
        _LETTERS,
        {
            "letters": SEARCHED_LETTERS,
            "bytes": SEARCHED_BYTES,
            "did": did.encode(),
            "path": path.encode(),
            "shown": SHOWN_LETTERS,
        },
    ).fetchall()
    return [
        told.Letter(id_, reason, created_at, holds(bytes(body)))
        for id_, reason, created_at, body in found
    ]


def _records(connection: Connection[Any], did: str) -> dict[str, int]:
    """How many rows of each table an account wrote, each counted up to a bound."""
    counts = {}
    names = {"did": did, "most": MOST_RECORDS + 1}
    for type_, condition in OWNED:
        query = (
            f"SELECT count(*) FROM (SELECT FROM {type_.table} WHERE {condition} LIMIT %(most)s) t"
        )
        ((count,),) = _rows(connection, query, names)
        if count:
            counts[type_.table] = count
    return counts
