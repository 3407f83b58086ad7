"""How `verify` and `repair` go through the tables: in slices, by index look-ups alone.

A slice is a range of one column, so what one query reads is bounded whatever the table holds, and
no query sorts or hashes a table. Checks that cut the same column one after the other share their
slices, and so the pages that these bring into memory.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import psycopg
from psycopg import sql

from actors.store.database import connect
from actors.store.verify_checks import CHECKS_OF_COUNTS, Check
from actors.store.verify_derived import CHECKS_OF_DERIVED
from actors.store.verify_notifications import CHECKS_OF_NOTIFICATIONS
from actors.store.verify_people import CHECKS_OF_PEOPLE
from actors.store.verify_waits import CHECKS_OF_FLAGS, CHECKS_OF_PENDING

# What a row rests on is checked, and mended, before it.
CHECKS: Final[tuple[Check, ...]] = (
    *CHECKS_OF_PEOPLE,
    *CHECKS_OF_DERIVED,
    *CHECKS_OF_FLAGS,
    *CHECKS_OF_COUNTS,
    *CHECKS_OF_PENDING,
    *CHECKS_OF_NOTIFICATIONS,
)
BY_NAME: Final = {check.name: check for check in CHECKS}
# A plan that suits a small table must not be used on one that has grown, and one that reads a whole
# table for each slice never.
SESSION: Final = {
    "statement_timeout": "0",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Others are at work here, too.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


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
        told = BY_NAME[self.check].message.format(
            found=self.found, expected=self.expected, detail=self.detail or self.key
        )
        return f"{self.key}: {told}"


@dataclass(frozen=True, slots=True)
class Step:
    """How far a walk is: `rows` looked at in `seconds`, differences `found` so far."""

    check: str
    done: int
    checks: int
    rows: int
    seconds: float
    found: int = 0


Progress = Callable[[Step], None]


def session(conninfo: str, name: str) -> psycopg.Connection:
    """Open a connection in autocommit mode that plans as a walk must. Raises psycopg.Error."""
    return connect(conninfo, application_name=name, autocommit=True, settings=SESSION)


class Walk:
    """One way through all checks, group by group; counts what was looked at."""

    def __init__(
        self,
        connection: psycopg.Connection,
        checks: Sequence[Check],
        slice_rows: int,
        progress: Progress | None,
    ) -> None:
        self._connection = connection
        self._checks = checks
        self._slice_rows = slice_rows
        self._progress = progress
        self._began = time.monotonic()
        self._ends: dict[tuple[str, str], list[tuple[Any, int]]] = {}
        self.done = 0
        self.rows = 0
        self.found = 0

    def slices(self) -> Iterator[tuple[list[Check], sql.Composable]]:
        """Every slice: the checks that cut it, and its condition.

        Rows where the column is null belong to no slice. Together the slices cover every key, also
        one that comes while they are walked.
        """
        for (table, column), group in groupby(self._checks, lambda one: (one.table, one.column)):
            checks = list(group)
            self.tell(checks[0].name)
            for condition, rows in self._ranges(table, column):
                yield checks, condition
                self.rows += rows * len(checks)
                self.tell(checks[0].name)
            self.done += len(checks)
        self.tell("")

    def tell(self, check: str) -> None:
        """Report how far the walk is."""
        if self._progress is not None:
            seconds = time.monotonic() - self._began
            step = Step(check, self.done, len(self._checks), self.rows, seconds, self.found)
            self._progress(step)

    def _ranges(self, table: str, name: str) -> Iterator[tuple[sql.Composable, int]]:
        column = sql.Identifier("d", name)
        above: sql.Composable = sql.SQL("{} IS NOT NULL").format(column)
        known = self._ends.get((table, name))
        ends: list[tuple[Any, int]] = []
        while True:
            if known is not None:
                end, rows = known[len(ends)] if len(ends) < len(known) else (None, 0)
            else:
                end, rows = self._end(table, column, above)
            ends.append((end, rows))
            if end is None:
                yield above, rows
                self._ends[table, name] = ends
                return
            yield sql.SQL("{} AND {} <= {}").format(above, column, end), rows
            above = sql.SQL("{} > {}").format(column, end)

    def _end(self, table: str, column: sql.Identifier, above: sql.Composable) -> tuple[Any, int]:
        """The last value of the next slice (None when it is the last slice), and its rows."""
        row = self._connection.execute(
            sql.SQL(
                "SELECT max(s.value), count(*) FROM"
                " (SELECT {} AS value FROM {} d WHERE {} ORDER BY 1 LIMIT {}) s"
            ).format(column, sql.Identifier(table), above, self._slice_rows),
            prepare=False,
        ).fetchone()
        assert row is not None
        end, rows = row
        return (end if rows == self._slice_rows else None), rows


def differences(
    connection: psycopg.Connection, check: Check, condition: sql.Composable, most: int | None
) -> list[Difference]:
    """What breaks a rule among the rows of a condition, at most that many."""
    query = build_query(check, condition)
    if most is not None:
        query += sql.SQL(" LIMIT {}").format(most)
    rows: list[tuple[Any, ...]] = connection.execute(query, prepare=False).fetchall()
    return [Difference(check.name, *row) for row in rows]


def build_query(check: Check, condition: sql.Composable) -> sql.Composed:
    """The query of a check for the rows of a condition."""
    fields: dict[str, sql.Composable] = {
        placeholder: sql.Literal(name) if placeholder == "table_name" else sql.Identifier(name)
        for placeholder, name in check.names.items()
    }
    fields |= {placeholder: sql.SQL(part) for placeholder, part in check.parts.items()}
    return sql.SQL(check.sql).format(slice=condition, **fields)


def those(check: Check, suspects: Sequence[Difference]) -> sql.Composable:
    """The condition that only rows of these keys fulfil, as look-ups of an index."""
    column = sql.Identifier("d", check.column)
    if not check.detail:
        return sql.SQL("{} = ANY({})").format(column, sorted({one.key for one in suspects}))
    return sql.SQL("({}, {}) IN (SELECT * FROM unnest({}::text[], {}::text[]))").format(
        column,
        sql.Identifier("d", check.detail),
        [one.key for one in suspects],
        [one.detail for one in suspects],
    )
