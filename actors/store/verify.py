"""`run.py verify`: whether the tables are what their rows make of them.

Every counter is counted again and every derived row is looked up, in slices, each in a snapshot of
its own; nothing is written and nothing is locked, so it runs on a database at work. What seems
wrong is looked at once more at the end, all in one snapshot, and only what is still wrong then is
reported.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import IsolationLevel, sql

from actors.store.database import connect
from actors.store.verify_checks import CHECKS_OF_COUNTS, Check
from actors.store.verify_derived import CHECKS_OF_DERIVED

CHECKS: Final[tuple[Check, ...]] = CHECKS_OF_COUNTS + CHECKS_OF_DERIVED

# As progress(check's name, number of checks done, number of checks).
Progress = Callable[[str, int, int], None]

_KEYS_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is wrong.

    Attributes:
        check: the name of the check that found it.
        key: the uri or DID that it concerns.
        detail: the rest of the key (the viewer, the duplicate's thing), or ''.
        found: what the database holds.
        expected: what it should hold.
    """

    check: str
    key: str
    detail: str
    found: str
    expected: str

    def __str__(self) -> str:
        check = _BY_NAME[self.check]
        told = check.message.format(
            found=self.found, expected=self.expected, detail=self.detail or self.key
        )
        return f"{self.key}: {told}"


_BY_NAME: Final = {check.name: check for check in CHECKS}


def verify(
    conninfo: str,
    *,
    slice_rows: int = 50_000,
    most: int = 1_000,
    progress: Progress | None = None,
) -> list[Difference]:
    """Check every rule of the index; the result is empty when all hold.

    Args:
        conninfo: of the database.
        slice_rows: rows that one query looks at, about; bounds how long a snapshot is held.
        most: differences after which a check stops, so that a ruined database fills no memory.
        progress: called before each check and after the last.

    Raises psycopg.Error: when the database cannot be reached or lacks a table (see `run.py
    migrate`).
    """
    assert slice_rows > 0, "a slice has at least one row"
    candidates: dict[str, list[Difference]] = {}
    with connect(
        conninfo, application_name="verify", autocommit=True, settings={"statement_timeout": "0"}
    ) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        for number, check in enumerate(CHECKS):
            if progress is not None:
                progress(check.name, number, len(CHECKS))
            candidates[check.name] = _first_look(connection, check, slice_rows, most)
        with connection.transaction():
            confirmed = [
                difference
                for check in CHECKS
                for difference in _second_look(connection, check, candidates[check.name])
            ]
    if progress is not None:
        progress("", len(CHECKS), len(CHECKS))
    return confirmed


def _first_look(
    connection: psycopg.Connection, check: Check, slice_rows: int, most: int
) -> list[Difference]:
    """What seems wrong, slice by slice, up to `most`."""
    found: list[Difference] = []
    for condition in _slices(connection, check, slice_rows):
        with connection.transaction():
            query = _query(check, condition) + sql.SQL(" LIMIT {}").format(most - len(found))
            found += _differences(connection, check, query)
        if len(found) >= most:
            break
    return found


def _second_look(
    connection: psycopg.Connection, check: Check, candidates: list[Difference]
) -> Iterator[Difference]:
    """Those of the candidates that are wrong in the present snapshot, as they are now."""
    suspects = {(candidate.key, candidate.detail) for candidate in candidates}
    keys = sorted({candidate.key for candidate in candidates})
    column = sql.Identifier("d", check.column)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        condition = sql.SQL("{} = ANY({})").format(column, some)
        for difference in _differences(connection, check, _query(check, condition)):
            if (difference.key, difference.detail) in suspects:
                yield difference


def _differences(
    connection: psycopg.Connection, check: Check, query: sql.Composed
) -> Iterable[Difference]:
    rows: list[tuple[Any, ...]] = connection.execute(query, prepare=False).fetchall()
    return [Difference(check.name, *row) for row in rows]


def _query(check: Check, condition: sql.Composable) -> sql.Composed:
    names: dict[str, sql.Composable] = {
        placeholder: sql.Literal(name) if placeholder == "table_name" else sql.Identifier(name)
        for placeholder, name in check.names.items()
    }
    return sql.SQL(check.sql).format(slice=condition, **names)


def _slices(
    connection: psycopg.Connection, check: Check, slice_rows: int
) -> Iterator[sql.Composable]:
    """Conditions that cut the check's table into ranges of its column, in the column's order.

    Rows where the column is null belong to no slice. Together the slices cover every key, also one
    that comes while they are walked.
    """
    table, column = sql.Identifier(check.table), sql.Identifier("d", check.column)
    above: sql.Composable = sql.SQL("{} IS NOT NULL").format(column)
    while True:
        with connection.transaction():
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
