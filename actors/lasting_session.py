"""A writer's connection that outlives outages of PostgreSQL, for an actor that is no shard.

What is to be done is handed in as a function, which is called again until PostgreSQL lets it.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from actors.store.fence import Fence, RunReplaced
from actors.store.outage import Outage
from actors.store.session import (
    PASSING,
    REFUSALS,
    Connection,
    DatabaseAway,
    DatabaseUnusable,
    SessionSettings,
    TooSlow,
    one_line,
    wait_for_session,
    writing,
)
from engine.context import Context

# Attempts at what met the lock of somebody else; then it counts as an outage.
MAX_RETRIES: Final = 20
RETRY_SECONDS: Final = 0.02

T = TypeVar("T")


class LastingSession:
    """The connection of one actor, which takes its place by the fence.

    Args:
        context: the actor's.
        settings: how to connect.
        prepare: makes ready a connection that was just opened.

    Attributes:
        fence: the actor's right to write; every transaction must check it.
    """

    def __init__(
        self,
        context: Context,
        settings: SessionSettings,
        prepare: Callable[[Connection], None] = lambda _connection: None,
    ) -> None:
        self.fence = Fence(context.name, context.epoch, context.generation)
        self._context = context
        self._settings = settings
        self._prepare = prepare
        self._connection: Connection | None = None
        self._outage = Outage(
            f"PostgreSQL is away: the {context.name} waits for it",
            "PostgreSQL is back",
            context.clock.monotonic,
        )
        self._outages = context.metrics.counter(
            "database_outages_total", "Times PostgreSQL was away"
        )

    def open(self) -> None:
        """Connect, and take over from an older generation; ends the run where that fails."""
        context = self._context
        try:
            self._connection = wait_for_session(
                self._settings, context.name, context.wait, context.clock.monotonic, self._take_over
            )
        except DatabaseAway as away:
            context.give_up(f"PostgreSQL stayed away: {away}", 69)
        except RunReplaced as replaced:
            context.give_up(str(replaced), 75)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def attempt(
        self, action: Callable[[Connection], T], *, parted: bool = False, reads: bool = False
    ) -> T:
        """Do something on the connection, again until PostgreSQL lets it; ends the run where it
        stays away.

        `action` must bear being repeated, and on another connection than before. `parted` says that
        less can be done at once: then what takes too long raises TooSlow, and is an outage
        otherwise. `reads` says that it writes nothing. Raises one of REFUSALS, and what else the
        action raises.
        """
        context = self._context
        # Reading says nothing where it is writing that fails, as on a full disk.
        proves = not (reads and self._outage.goes_on)
        retries = 0
        while True:
            try:
                assert self._connection is not None, "open it first"
                with writing():
                    result = action(self._connection)
            except DatabaseAway as away:
                self.wait_out(away)
            except RunReplaced as replaced:
                context.give_up(str(replaced), 75)
            except DatabaseUnusable as unusable:
                context.give_up(f"PostgreSQL refuses what the {context.name} does: {unusable}", 78)
            except TooSlow as slow:
                if parted:
                    raise
                self.wait_out(DatabaseAway(str(slow)))
            except PASSING as error:
                retries += 1
                if retries <= MAX_RETRIES:
                    context.wait(RETRY_SECONDS)
                elif isinstance(error, REFUSALS):
                    raise
                else:
                    self.wait_out(DatabaseAway(one_line(error)))
            else:
                if proves:
                    self._outage.succeeded()
                return result

    def wait_out(self, away: DatabaseAway) -> None:
        """Wait a moment and connect again; ends the run when the outage lasts too long."""
        context = self._context
        if not self._outage.goes_on:
            self._outages.add()
        pause = self._outage.failed(away)
        if self._outage.seconds > self._settings.outage_seconds:
            context.give_up(f"PostgreSQL has let the {context.name} do nothing since: {away}", 69)
        self.close()
        context.wait(pause)
        self.open()

    def _take_over(self, connection: Connection) -> None:
        self.fence.claim(connection)
        self._prepare(connection)
