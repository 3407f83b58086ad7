"""Fencing: who may write. An epoch per run, a generation per actor, checked in every transaction.

A run raises the epoch when it starts; a restarted actor claims its next generation. Whoever writes
takes the fence's lock shared, for the length of its transaction, and looks; whoever raises takes it
alone. So once a raise returns, no transaction of an older epoch or generation is under way, and
none can commit any more.
"""

from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

# Keys of advisory locks, in this database only; the numbers mean nothing.
FENCE_LOCK: Final = 0x5359_0001
OWNER_LOCK: Final = 0x5359_0002

# Runs whose tallies are kept.
KEPT_EPOCHS: Final = 100

CHECK_SQL: Final = (
    "SELECT e.epoch, f.generation FROM engine_epoch e"
    " LEFT JOIN engine_fences f ON f.actor = %s AND f.epoch = e.epoch"
)
LOCK_SQL: Final = f"SELECT pg_advisory_xact_lock_shared({FENCE_LOCK})"


def _lock_alone(connection: Connection[Any]) -> None:
    """Wait for every transaction under way; each is bounded by its own timeouts, so no other is."""
    connection.execute("SET LOCAL lock_timeout = 0")
    connection.execute(f"SELECT pg_advisory_xact_lock({FENCE_LOCK})")


class Fenced(Exception):
    """This process has been replaced: a newer run or generation owns its work. It must end."""


class RunReplaced(Fenced):
    """Another run owns the database now; no generation of this run can write any more."""


def raise_epoch(connection: Connection[Any], holder: str) -> int:
    """Begin a new epoch; returns its number. `holder` tells people who it is (host and process).

    Waits until every transaction of the older epoch is over. Needs its own transaction: the
    connection must not be in one.
    """
    with connection.transaction():
        _lock_alone(connection)
        row = connection.execute(
            "INSERT INTO engine_epoch (id, epoch, holder) VALUES (1, 1, %s)"
            " ON CONFLICT (id) DO UPDATE SET epoch = engine_epoch.epoch + 1,"
            " holder = excluded.holder, started_at = now(), ended = false RETURNING epoch",
            [holder],
        ).fetchone()
        assert row is not None
        connection.execute("DELETE FROM engine_fences WHERE epoch < %s", [row[0]])
        connection.execute("DELETE FROM engine_tallies WHERE epoch < %s", [row[0] - KEPT_EPOCHS])
    epoch: int = row[0]
    return epoch


@dataclass(frozen=True, slots=True)
class Fence:
    """An actor's right to write: its name, the run's epoch, its own generation."""

    actor: str
    epoch: int
    generation: int

    def claim(self, connection: Connection[Any]) -> None:
        """Make this the actor's living generation; raises Fenced where a newer one lives.

        Waits until every transaction of the older generation is over.
        """
        with connection.transaction():
            _lock_alone(connection)
            row = connection.execute("SELECT epoch FROM engine_epoch").fetchone()
            self._demand_epoch(row[0] if row is not None else None)
            claimed = connection.execute(
                "INSERT INTO engine_fences (actor, epoch, generation) VALUES (%s, %s, %s)"
                " ON CONFLICT (actor) DO UPDATE SET epoch = excluded.epoch,"
                " generation = excluded.generation"
                " WHERE engine_fences.epoch < excluded.epoch"
                " OR engine_fences.generation <= excluded.generation RETURNING 1",
                [self.actor, self.epoch, self.generation],
            ).fetchone()
            if claimed is None:
                raise Fenced(f"{self.actor}: a generation above {self.generation} is alive")

    def check(self, connection: Connection[Any]) -> None:
        """Hold the right to write until the transaction ends; raises Fenced where it is gone."""
        connection.execute(LOCK_SQL)
        self.demand(connection.execute(CHECK_SQL, [self.actor]).fetchone())

    def demand(self, row: tuple[int, int | None] | None) -> None:
        """Judge what CHECK_SQL returned; raises Fenced unless epoch and generation are ours."""
        self._demand_epoch(row[0] if row is not None else None)
        assert row is not None
        if row[1] != self.generation:
            raise Fenced(
                f"{self.actor}: generation {self.generation} has been replaced by {row[1]}"
            )

    def _demand_epoch(self, epoch: int | None) -> None:
        if epoch != self.epoch:
            raise RunReplaced(
                f"run {self.epoch} has been replaced by run {epoch}, which another program began"
                " on this database"
            )
