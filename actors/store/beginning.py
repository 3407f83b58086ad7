"""When the index began to follow the network: the time of the first events that were applied.

It is written once. What is fetched is news only where it was written since (see `news`).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import Connection

from actors.store.arrays import array, text_array
from actors.store.batch import AccountState, AppliedCommit, Change, Fetched, IdentityState
from actors.store.folding import Known
from actors.store.news import COMMIT_SEQ

_READ_SQL: Final = "SELECT (extract(epoch FROM time) * 1000000)::bigint FROM engine_beginning"
_PUT_SQL: Final = (
    "INSERT INTO engine_beginning (id, time) SELECT 1, i.time FROM unnest(%b::timestamp[])"
    " AS i (time) ON CONFLICT (id) DO NOTHING"
)
_CAME_SQL: Final = (
    "SELECT uri, commit_seq FROM {table} WHERE uri = ANY(%b::text[]) AND commit_seq IS NOT NULL"
)


def look(
    connection: Connection[Any], changes: Sequence[Change], known: Known, *, begun: bool
) -> bool:
    """Take in what decides on the news among changes; returns whether the index has begun.

    With `begun` this is known. Where it has not, it begins with these.
    """
    if not begun:
        begun = note(connection, changes)
    if any(isinstance(change, Fetched) for change in changes):
        known.beginning = read(connection)
        known.came = came(connection, changes)
    return begun


def read(connection: Connection[Any]) -> int | None:
    """The beginning, in microseconds since 1970; None where no event was applied yet."""
    row = connection.execute(_READ_SQL).fetchone()
    return None if row is None else int(row[0])


def came(connection: Connection[Any], changes: Sequence[Change]) -> dict[str, str]:
    """The `commit_seq` of those that were fetched, and are indexed and have one."""
    keys: dict[str, list[str]] = {}
    for change in changes:
        if isinstance(change, Fetched):
            for operation in change.operations:
                if COMMIT_SEQ in operation.type.columns:
                    keys.setdefault(operation.type.table, []).append(operation.key)
    found: dict[str, str] = {}
    for table, uris in keys.items():
        rows = connection.execute(_CAME_SQL.format(table=table).encode(), [text_array(uris)])
        found.update(rows)
    return found


def note(connection: Connection[Any], changes: Iterable[Change]) -> bool:
    """Keep the time of these, if they are the first; returns whether it was known before.

    It is the time in the middle: a host may say what it likes, and few do.
    """
    times = sorted(
        change.time
        for change in changes
        if isinstance(change, AppliedCommit | AccountState | IdentityState)
    )
    if not times:
        return False
    if read(connection) is not None:
        return True
    connection.execute(_PUT_SQL, [array("timestamp", [times[len(times) // 2]])])
    return False
