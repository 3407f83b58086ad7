"""Tells in time when a table whose rows an actor makes runs out of numbers for them."""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from actors.store import ids
from actors.store.session import Connection
from engine.context import Context

log = structlog.get_logger()

LOOK_SECONDS: Final = 6 * 3600.0
MUCH: Final = 0.75
"""The part from which on it is told. Then a fourth is left: of 32 bits 500 million rows."""


class Attempt(Protocol):
    """Does something on the actor's connection, again until the database lets it."""

    def __call__(self, action: Callable[[Connection], float], /) -> float: ...


class IdWatch:
    """Looks at one table now and then, within the loop of the actor that writes it.

    Args:
        context: the actor's.
        attempt: for looking.
        table: its name; its numbers are in the column `id`.
    """

    def __init__(self, context: Context, attempt: Attempt, table: str) -> None:
        self._context = context
        self._attempt = attempt
        self._table = table
        self._used = context.metrics.gauge(
            "ids_used", "Part of the numbers for a table's rows that is used up", table=table
        )

    def look(self) -> None:
        """Look now, and again every few hours."""
        part = self._attempt(partial(ids.used, table=self._table))
        self._used.set(part)
        if part >= MUCH:
            log.warning(
                "the numbers for the rows of a table are running out, and with them the run ends:"
                ' see "Numbers of rows" in docs/existing-database.md',
                table=self._table,
                percent=int(100 * part),
            )
        self._context.after(LOOK_SECONDS, self.look)
