"""The newest drops, kept in `engine_drops`: so `run.py explain` can say what became of a record.

They are written in the transaction of their batch, so a drop that was counted is there, and one
whose batch was applied again is not there twice. The table is bounded: each transaction that adds
rows takes as many of the oldest away, without waiting for those that another one is taking.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from actors.drops import DropReason
from actors.store.arrays import text_array
from actors.store.batch import Dropped

# An author whose every record is broken must not push out all others at once.
MOST_OF_ONE_AUTHOR: Final = 100
MAX_DETAIL: Final = 500
# PostgreSQL refuses entries of an index above some 2,700 bytes.
MAX_SUBJECT_BYTES: Final = 2_000
# Rows taken away beyond those that come, so that a smaller bound is reached after a while.
EXTRA_ROWS: Final = 200

# The author's or the operator's will, and the account's status, explain these; and who has opted
# out must not leave a trace for each record.
_EXPLAINED_ELSEWHERE: Final = frozenset(
    (DropReason.OPTED_OUT, DropReason.TAKEN_DOWN, DropReason.ACCOUNT_INACTIVE)
)
INSERT_SQL: Final = (
    "INSERT INTO engine_drops (subject, reason, detail)"
    " SELECT i.subject, i.reason, i.detail"
    " FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[])"
    " AS i (subject, author, reason, detail)"
    " WHERE NOT EXISTS (SELECT 1 FROM user_settings s"
    " WHERE s.user_did = i.author AND s.data_collection_forbidden)"
)
PRUNE_SQL: Final = (
    "DELETE FROM engine_drops WHERE id IN (SELECT id FROM engine_drops"
    " WHERE id <= (SELECT max(id) FROM engine_drops) - %s ORDER BY id LIMIT %s"
    " FOR UPDATE SKIP LOCKED)"
)


def author_of(subject: str) -> str:
    """Return the DID of a drop's subject, which is a uri or a DID."""
    return subject.split("/", 3)[2] if subject.startswith("at://") else subject


def as_subject(subject: str) -> str:
    """Return a subject as the table has it: too long a one is cut."""
    return _clean(subject).encode()[:MAX_SUBJECT_BYTES].decode(errors="ignore")


def record_drops(connection: Connection[Any], drops: Sequence[Dropped], keep: int) -> None:
    """Keep the drops of a batch, and no more than about the newest `keep` in all.

    To be called within the batch's transaction; it reads no answer, so a pipeline goes on. Drops
    that name nobody, and those that other tables explain, are left out.
    """
    if keep <= 0:
        return
    of_author: Counter[str] = Counter()
    rows: list[tuple[str, str, str, str]] = []
    for drop in drops:
        if not drop.subject or drop.reason in _EXPLAINED_ELSEWHERE:
            continue
        author = author_of(drop.subject)
        of_author[author] += 1
        if of_author[author] <= MOST_OF_ONE_AUTHOR:
            detail = _clean(drop.detail)[:MAX_DETAIL]
            rows.append((as_subject(drop.subject), as_subject(author), drop.reason, detail))
    if not rows:
        return
    rows = rows[-keep:]
    columns = zip(*rows, strict=True)
    connection.execute(INSERT_SQL, [text_array(column) for column in columns])
    connection.execute(PRUNE_SQL, [keep, len(rows) + EXTRA_ROWS])


def _clean(text: str) -> str:
    """Return text that PostgreSQL takes, whatever came over the network."""
    return text.replace("\0", "").encode(errors="replace").decode()
