"""What ingest runs in its I/O thread: one connection, from finding its start to its ending."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from actors.since import Event, Unreachable, cursor_at, first_event
from actors.upstream import End, Ending, Item, Upstream

PATIENCE_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 2.0
"""How long a question of the bisection may take, until the connection is open and after that."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to read: after a cursor (None: from now on).

    With a `moment` in Unix seconds, after the cursor that is found to lie before it.
    """

    cursor: int | None
    moment: float | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """The moment that was looked for lies after this cursor."""

    cursor: int


StreamItem = Item | Located
"""What a reading delivers, in order; the last is an `Ending`, also when it is cancelled."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One connection to an upstream, and what is asked of it."""

    upstream: Upstream
    place: Place

    async def run(self, deliver: Callable[[StreamItem], Awaitable[None]]) -> None:
        """Read until an ending. An error that nobody expected is raised, after an ending."""
        ending = Ending(End.DROPPED)
        try:
            cursor = self.place.cursor
            if self.place.moment is not None:
                cursor = await cursor_at(self.place.moment, self._probe)
                await deliver(Located(cursor))
            ending = await self.upstream.read(cursor, deliver)
        except Unreachable as error:
            ending = error.ending
        finally:
            await deliver(ending)

    async def _probe(self, cursor: int) -> Event | None:
        return await first_event(
            self.upstream, cursor, patience=PATIENCE_SECONDS, silence=SILENCE_SECONDS
        )
