"""What fits into the columns of an existing database, whose strings have lengths.

A key that is too long would be another key if it were cut: its record is a drop. Any other text is
cut. A database of our own has no such columns, and then nothing is looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.drops import DropReason
from actors.records.record import Derived, Row, Value
from actors.store.batch import AppliedCommit, Change, Dropped, Fetched, Operation
from actors.store.schema import TABLES
from actors.store.statements import DERIVED_COLUMNS

# The length of a varchar(n) stands in its type's modifier, which counts four bytes more.
_LIMITS_SQL: Final = (
    "SELECT c.relname::text, a.attname::text, a.atttypmod - 4 FROM pg_class c"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)"
    " AND a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4"
)


class _Limit(NamedTuple):
    """Of one column: its place in a row, its name, characters, whether it holds a key."""

    position: int
    column: str
    length: int
    key: bool


class _TooLong(Exception):
    """A key does not fit; says which."""


@dataclass(slots=True)
class Limits:
    """Lengths of columns, in characters, by table and column. False where there are none."""

    lengths: Mapping[str, Mapping[str, int]]
    _of_row: dict[tuple[str, tuple[str, ...]], tuple[_Limit, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.lengths)

    def fits(self, table: str, column: str, value: str) -> bool:
        """Whether a column takes a value as it is."""
        length = self.lengths.get(table, {}).get(column)
        return length is None or len(value) <= length

    def fit(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Return the changes as this database can hold them: texts cut, and drops in the place of
        records whose keys are too long. Both are counted with their commit.
        """
        if not self.lengths:
            return changes
        return [
            self._commit(change) if isinstance(change, AppliedCommit | Fetched) else change
            for change in changes
        ]

    def _commit(self, commit: AppliedCommit | Fetched) -> AppliedCommit | Fetched:
        operations: list[Operation] = []
        drops: list[Dropped] = []
        cuts = 0
        for operation in commit.operations:
            type_ = operation.type
            if not self.fits(type_.table, type_.key_column, operation.key):
                # Nothing can be stored under this key, so there is nothing to take away either.
                if operation.row is not None:
                    drops.append(_drop(operation, type_.key_column))
                continue
            row = operation.row
            if row is not None:
                try:
                    row, cut = self._row(type_.table, type_.columns, row)
                except _TooLong as error:
                    drops.append(_drop(operation, str(error)))
                    # What an update leaves is not what its repository holds any more.
                    operations.append(operation._replace(cid="", row=None))
                    continue
                if cut:
                    cuts += cut
                    operation = operation._replace(row=row)  # noqa: PLW2901 - the same, as it fits
            operations.append(operation)
        if not drops and not cuts:
            return commit
        return commit._replace(
            operations=operations, drops=[*commit.drops, *drops], cuts=commit.cuts + cuts
        )

    def _row(self, table: str, columns: tuple[str, ...], row: Row) -> tuple[Row, int]:
        values, cuts = self._values(table, columns, row.values)
        derived: list[Derived] = []
        for one in row.derived:
            fitting, more = self._values(one.table, DERIVED_COLUMNS[one.table], one.values)
            cuts += more
            derived.append(one._replace(values=fitting))
        return (row._replace(values=values, derived=tuple(derived)), cuts) if cuts else (row, 0)

    def _values(
        self, table: str, columns: tuple[str, ...], values: tuple[Value, ...]
    ) -> tuple[tuple[Value, ...], int]:
        """Cut what may be cut; returns the values and how many were. Raises _TooLong."""
        limits = self._of_row.get((table, columns))
        if limits is None:
            limits = self._of_row[table, columns] = self._limits(table, columns)
        cut: dict[int, str] = {}
        for position, column, length, key in limits:
            value = values[position]
            if type(value) is str and len(value) > length:
                if key:
                    raise _TooLong(f"{table}.{column} holds {length} characters")
                cut[position] = value[:length]
        if not cut:
            return values, 0
        return tuple(cut.get(at, value) for at, value in enumerate(values)), len(cut)

    def _limits(self, table: str, columns: tuple[str, ...]) -> tuple[_Limit, ...]:
        lengths = self.lengths.get(table, {})
        return tuple(
            _Limit(position, column, lengths[column], _is_key(table, column))
            for position, column in enumerate(columns)
            if column in lengths
        )


NO_LIMITS: Final = Limits({})


def read_limits(connection: Connection[Any]) -> Limits:
    """Read the lengths of the columns of this database."""
    lengths: dict[str, dict[str, int]] = {}
    for table, column, length in connection.execute(_LIMITS_SQL, [list(TABLES)]).fetchall():
        lengths.setdefault(table, {})[column] = length
    return Limits(lengths)


def _is_key(table: str, column: str) -> bool:
    """Whether rows are found by what a column holds. The CID that a record gives for its subject is
    none: a reader compares it, and a real one is short.
    """
    if column.endswith(("uri", "did")):
        return True
    return any(one.key_text for one in TABLES[table].columns if one.name == column)


def _drop(operation: Operation, detail: str) -> Dropped:
    return Dropped(DropReason.KEY_TOO_LONG, operation.uri, detail)
