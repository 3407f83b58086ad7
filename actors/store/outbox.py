"""The outbox: work that a batch means for another actor, written in the batch's own transaction.

The receiver deletes a row in the transaction in which it does the work, so a crash on either side
neither loses nor doubles any.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.arrays import array, text_array

# A reader takes no more than this at once, however large the rows are.
MAX_BYTES: Final = 16 * 1024 * 1024


class OutboxRow(NamedTuple):
    """One piece of work: its row and what is to be done, encoded; `age` in seconds."""

    row: int
    body: bytes
    age: float = 0.0


INSERT_SQL = (
    "INSERT INTO engine_outbox (receiver, body)"
    " SELECT * FROM unnest(%b::text[], %b::bytea[]) RETURNING id"
)


def insert_parameters(work: list[tuple[str, bytes]]) -> list[Any]:
    """Return the parameters of INSERT_SQL for (receiver, body) pairs; ids come back in order."""
    return [
        text_array([receiver for receiver, _ in work]),
        array("bytea", [body for _, body in work]),
    ]


def left_for(
    connection: Connection[Any],
    receiver: str,
    limit: int,
    max_bytes: int = MAX_BYTES,
    but: Sequence[int] = (),
) -> list[OutboxRow]:
    """Return the oldest work that waits for a receiver, in order.

    At most `limit` rows, and no more once they hold `max_bytes`; those in `but` are passed over.
    """
    rows = connection.execute(
        "SELECT id, body, extract(epoch FROM localtimestamp - created_at)::float8 FROM ("
        "SELECT id, body, created_at, sum(length(body)) OVER (ORDER BY id) AS total FROM ("
        "SELECT id, body, created_at FROM engine_outbox WHERE receiver = %s AND id <> ALL(%b)"
        " ORDER BY id LIMIT %s) o) t WHERE total - length(body) < %s ORDER BY id",
        [receiver, array("bigint", list(but)), limit, max_bytes],
    ).fetchall()
    return [OutboxRow(row, bytes(body), age) for row, body, age in rows]


def finish(connection: Connection[Any], rows: list[int]) -> None:
    """Delete work, within the transaction that does it."""
    connection.execute("DELETE FROM engine_outbox WHERE id = ANY(%b)", [array("bigint", rows)])


def bury(connection: Connection[Any], row: int, reason: str) -> None:
    """Move work that cannot be done to the dead letters, and count it as a drop of the run."""
    connection.execute(
        "WITH work AS (DELETE FROM engine_outbox WHERE id = %s RETURNING receiver, body),"
        " letter AS (INSERT INTO engine_dead_letters (sender, receiver, reason, body)"
        " SELECT 'outbox', receiver, %s, body FROM work RETURNING receiver)"
        " INSERT INTO engine_tallies AS t (epoch, actor, name, amount)"
        " SELECT e.epoch, letter.receiver, 'drop.dead_letter', 1 FROM letter, engine_epoch e"
        " ON CONFLICT (epoch, actor, name) DO UPDATE SET amount = t.amount + 1",
        [row, reason],
    )


def depth_of(connection: Connection[Any], receiver: str, most: int) -> int:
    """Return how many pieces of work wait for a receiver, counted up to `most`."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM engine_outbox WHERE receiver = %s LIMIT %s) o",
        [receiver, most],
    ).fetchone()
    assert row is not None
    return int(row[0])


def depth(connection: Connection[Any]) -> int:
    """Return how many pieces of work wait, for all receivers."""
    row = connection.execute("SELECT count(*) FROM engine_outbox").fetchone()
    assert row is not None
    count: int = row[0]
    return count
