"""Dead letters in PostgreSQL: messages that killed every process that read them."""

from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from actors.store.session import SessionSettings, open_session
from engine.deadletter import DeadLetter


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Makes the sink, in the process that needs it; picklable."""

    session: SessionSettings

    def __call__(self) -> "DeadLetterTable":
        """Open the sink. Raises DatabaseAway."""
        return DeadLetterTable(open_session(self.session, "dead letters"))


# With the letter itself it is counted as a drop of the run.
_PUT: Final = (
    "WITH letter AS (INSERT INTO engine_dead_letters (sender, receiver, reason, body, created_at)"
    " VALUES (%s, %s, %s, %s, to_timestamp(%s) AT TIME ZONE 'UTC') RETURNING sender)"
    " INSERT INTO engine_tallies AS t (epoch, actor, name, amount)"
    " SELECT e.epoch, letter.sender, 'drop.dead_letter', 1 FROM letter, engine_epoch e"
    " ON CONFLICT (epoch, actor, name) DO UPDATE SET amount = t.amount + 1"
)


class DeadLetterTable:
    """Puts dead letters into `engine_dead_letters`."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def put(self, letter: DeadLetter) -> None:
        """Store a letter, durably."""
        self._connection.execute(
            _PUT,
            [letter.sender, letter.receiver, letter.reason, letter.body, letter.time],
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
