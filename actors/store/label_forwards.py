"""What an outside label service is told: the rows of `label_events`, in order, and how far.

The table is the queue: nothing waits in memory, and a crash tells some of it again.
"""

from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.fence import Fence

# The label as it is now: where it has changed since the event, another event follows. One that has
# expired was not negated by its source, and says itself until when it held.
_NEXT_SQL: Final = (
    "SELECT e.id, l.src, l.subject, l.cid, l.val,"
    " l.neg AND l.engine_expires IS NULL, l.cts, l.exp, l.sig, l.ver"
    " FROM label_events e LEFT JOIN labels l ON l.uri = e.label_uri"
    " WHERE e.id > %s ORDER BY e.id LIMIT %s"
)
_BEGIN_SQL: Final = (
    "INSERT INTO engine_label_forwards (url, event)"
    " SELECT %s, coalesce(max(id), 0) FROM label_events"
    " ON CONFLICT (url) DO UPDATE SET url = excluded.url RETURNING event"
)
_MOVE_SQL: Final = "UPDATE engine_label_forwards SET event = %s, updated_at = now() WHERE url = %s"
_COUNT_SQL: Final = "SELECT count(*) FROM label_events WHERE id > %s AND id <= %s"
_LAST_SQL: Final = "SELECT coalesce(max(id), 0) FROM label_events"


class Told(NamedTuple):
    """One event: its number, and the label that it is about, None where that was removed."""

    event: int
    label: dict[str, Any] | None


def begin(connection: Connection[Any], fence: Fence, url: str) -> int:
    """The last event that was told to this url; one that is new is told what comes from now on.

    Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        row = connection.execute(_BEGIN_SQL, [url]).fetchone()
    assert row is not None
    event: int = row[0]
    return event


def following(connection: Connection[Any], event: int, limit: int) -> list[Told]:
    """The events after one, in order."""
    rows = connection.execute(_NEXT_SQL, [event, limit]).fetchall()
    return [Told(number, _label(*row)) for number, *row in rows]


def count(connection: Connection[Any], after: int, until: int) -> int:
    """How many events there are after one, up to another; the numbers have gaps."""
    row = connection.execute(_COUNT_SQL, [after, until]).fetchone()
    assert row is not None
    events: int = row[0]
    return events


def last(connection: Connection[Any]) -> int:
    """The number of the newest event."""
    row = connection.execute(_LAST_SQL).fetchone()
    assert row is not None
    event: int = row[0]
    return event


def move(connection: Connection[Any], fence: Fence, url: str, event: int) -> None:
    """Note how far was told. Raises Fenced."""
    with connection.transaction():
        fence.check(connection)
        connection.execute(_MOVE_SQL, [event, url])


def _label(
    src: str | None,
    subject: str,
    cid: str | None,
    val: str,
    neg: bool,
    cts: str | None,
    exp: str | None,
    sig: bytes | None,
    ver: int | None,
) -> dict[str, Any] | None:
    """A label with the names of its lexicon, without what it does not have."""
    if src is None:
        return None
    fields = {
        "ver": ver,
        "src": src,
        "uri": subject,
        "cid": cid,
        "val": val,
        "neg": neg or None,
        "cts": cts,
        "exp": exp,
        "sig": sig,
    }
    return {name: value for name, value in fields.items() if value is not None}
