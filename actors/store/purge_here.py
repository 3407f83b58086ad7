"""Removing what was ordered to be removed without an engine: as a run of one writer, that ends."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from psycopg import Connection

from actors.store.decisions import purges_of
from actors.store.fence import Fence
from actors.store.ownership import Ownership
from actors.store.session import SessionSettings, away, open_session
from actors.store.writer import Writer

ACTOR: Final = "command"
_END: Final = "UPDATE engine_epoch SET ended = true WHERE epoch = %s"


def purge_here(
    session: SessionSettings, holder: str, subjects: Sequence[str], seen: Callable[[int], None]
) -> None:
    """Take the database, remove what is stored of these subjects, and let it go.

    `holder` tells others who has the database meanwhile; `seen` is called with how many records
    have gone, after each slice. Raises DatabaseRefused where another run has the database,
    DatabaseAway, and what a Writer raises.
    """
    ownership = Ownership(session, holder)
    epoch, before = ownership.take()
    try:
        with open_session(session, ACTOR) as connection:
            fence = Fence(ACTOR, epoch, 1)
            fence.claim(connection)
            _purge(connection, fence, subjects, seen)
            if before is None:
                # Else the next start has to hear how the run before this one ended.
                with away():
                    connection.execute(_END, [epoch])
    finally:
        ownership.close()


def _purge(
    connection: Connection[Any], fence: Fence, subjects: Sequence[str], seen: Callable[[int], None]
) -> None:
    writer = Writer(connection, fence)
    removed = 0
    for subject in subjects:
        while (outcome := writer.purge_slice(subject)) is not None:
            removed += sum(outcome.operations.values())
            seen(removed)
    assert not purges_of(connection, subjects), "a purge that is done leaves its row"
