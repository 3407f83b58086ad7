"""Mends notifications and waits: what a record does not notify of goes, what is wrong is set right.

Called under the fence's lock taken alone, see `repair`. Nobody is notified anew, but for the
operations whose subject is there: their wait ends as the notifier ends it.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection, sql

from actors.store.arrays import text_array
from actors.store.verify_notifications import NOTICES, Notice, compared
from actors.store.verify_waits import WAITS, indexed

_MEND: Final = """
    WITH e AS MATERIALIZED (
        SELECT d.id, e.suffix, e.recipient, e.reason, e.subject, {author} AS author, {cid} AS cid,
               {created} AS created
        FROM {compared}
        WHERE d.uri = ANY({uris}) AND split_part(d.engine_record_uri, '/', 4) = {collection}
          AND NOT {kept} AND ({author} IS NULL OR d.uri ~ ('^[^#]*' || {forms} || '$'))
    ), gone AS (
        DELETE FROM notifications n USING e WHERE n.id = e.id AND e.suffix IS NULL
    )
    UPDATE notifications n SET recipient_did = e.recipient, reason = e.reason,
        reason_subject = e.subject, author_did = e.author, cid = e.cid, created_at = e.created,
        is_read = n.is_read AND n.recipient_did = e.recipient
    FROM e WHERE n.id = e.id AND e.suffix IS NOT NULL
"""
_OTHERS: Final = """
    DELETE FROM notifications d WHERE d.uri = ANY({uris})
    AND split_part(d.engine_record_uri, '/', 4) <> ALL({collections})
"""
# What the records whose wait ends notify of, but for mentions, which wait for nothing.
_NOTIFY: Final = """
    INSERT INTO notifications (uri, recipient_did, author_did, reason, reason_subject, cid,
                               created_at, engine_record_uri)
    SELECT i.uri || e.suffix, e.recipient, {author}, e.reason, e.subject, {cid}, {created}, i.uri
    FROM unnest({uris}) AS i (uri) JOIN {record}
    CROSS JOIN LATERAL ({query}) e (suffix, recipient, reason, subject)
    WHERE split_part(i.uri, '/', 4) = {collection} AND e.reason <> 'mention' AND NOT {past}
      AND NOT EXISTS (SELECT FROM thread_mutes m
                      WHERE m.muter_did = e.recipient AND m.thread_root_uri = {thread})
    ON CONFLICT (uri) DO NOTHING
"""


def mend_notifications(connection: Connection[Any], uris: Sequence[str]) -> None:
    """Make these notifications what their records make of them, or take them away."""
    for notice in NOTICES.values():
        connection.execute(_filled(_MEND, notice, uris), prepare=False)
    collections = [notice.collection for notice in NOTICES.values()]
    connection.execute(
        sql.SQL(_OTHERS).format(uris=_texts(uris), collections=_texts(collections)), prepare=False
    )


def mend_pending(connection: Connection[Any], pairs: Sequence[tuple[str, str]]) -> None:
    """Take away entries that nothing waits for, and end the waits for what is there."""
    uris, awaited = zip(*sorted(set(pairs)), strict=True)
    keys = [text_array(uris), text_array(awaited)]
    those = "(d.uri, d.awaited) IN (SELECT * FROM unnest(%b::text[], %b::text[]))"
    connection.execute(
        f"UPDATE engine_pending d SET author = split_part(d.uri, '/', 3) WHERE {those}"
        " AND d.author <> split_part(d.uri, '/', 3)",
        keys,
    )
    connection.execute(f"DELETE FROM engine_pending d WHERE {those} AND NOT {WAITS}", keys)
    ended = connection.execute(
        f"DELETE FROM engine_pending d WHERE {those} AND {indexed('d.awaited')}"
        " AND d.created_at < now() - interval '5 minutes' RETURNING d.uri",
        keys,
    ).fetchall()
    records = sorted({uri for (uri,) in ended})
    if records:
        for notice in NOTICES.values():
            connection.execute(_filled(_NOTIFY, notice, records), prepare=False)


def _filled(template: str, notice: Notice, uris: Sequence[str]) -> sql.Composed:
    return sql.SQL(template).format(
        author=sql.SQL(notice.author),
        cid=sql.SQL(notice.cid),
        created=sql.SQL(notice.created),
        compared=sql.SQL(compared(notice)),
        record=sql.SQL(notice.record.replace("{uri}", "i.uri")),
        query=sql.SQL(notice.query),
        thread=sql.SQL(notice.thread),
        past=sql.SQL(notice.past),
        kept=sql.SQL(notice.kept),
        forms=sql.Literal(notice.forms),
        collection=sql.Literal(notice.collection),
        uris=_texts(uris),
    )


def _texts(values: Sequence[str]) -> sql.Composed:
    return sql.SQL("{}::text[]").format(sql.Literal(list(values)))
