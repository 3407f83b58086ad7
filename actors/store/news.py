"""What is news of the records that a fetch brings. Pure.

A fetch brings records of any age, and nobody is to be told today of what happened years ago. A
record that was written since the index began would have come live as well, had the fetch not
overtaken it or the stream not had a gap: that is told of, as if it had come live.

A record's own time is that of its key, where this tells one, else the one that it gives itself.
What an event has brought stays so when it is fetched again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.records.fields import key_time
from actors.store.batch import Operation

COMMIT_SEQ: Final = "commit_seq"
NO_EVENT: Final = "0"
"""`commit_seq` of what was fetched and is news. What is of the past has none, and tells nobody."""


def placed(
    operations: Sequence[Operation], since: int | None, came: Mapping[str, str]
) -> list[Operation]:
    """Fetched operations, their records marked as news or as of the past.

    News is what was written from `since` on (microseconds since 1970; None: nothing is). `came` is
    the `commit_seq` of records that have one.
    """
    return [_placed(operation, since, came) for operation in operations]


def _placed(operation: Operation, since: int | None, came: Mapping[str, str]) -> Operation:
    row, columns = operation.row, operation.type.columns
    if row is None:
        return operation
    seq = came.get(operation.uri)
    if seq is None and (since is None or _time(operation, row.values) < since):
        row = row._replace(past=True)
    elif COMMIT_SEQ in columns:
        at = columns.index(COMMIT_SEQ)
        values = (*row.values[:at], seq or NO_EVENT, *row.values[at + 1 :])
        row = row._replace(values=values)
    return operation._replace(row=row)


def _time(operation: Operation, values: Sequence[Any]) -> int:
    time = key_time(operation.uri)
    columns = operation.type.columns
    if time == 0 and "created_at" in columns:
        time = values[columns.index("created_at")]
    return time
