"""One engine per database: a lock that lives as long as the connection of the run that holds it."""

import threading
import time
from typing import Any, Final

from psycopg import Connection

from actors.store.fence import OWNER_LOCK, raise_epoch
from actors.store.migrate import bring_up_to_date
from actors.store.outage import Outage
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.rights import demand_rights
from actors.store.session import DatabaseAway, SessionSettings, away, open_session

KEEP_SECONDS: Final = 5.0
LONGEST_PAUSE: Final = 30.0
CLOSE_SECONDS: Final = 2.0
# A server takes a moment to notice that the process that held the lock is dead.
GRACE_SECONDS: Final = 2.0
_PAUSE: Final = 0.05


class Ownership:
    """Holds a database for this run, as long as the process lives.

    When the connection is lost (PostgreSQL restarted), a thread takes the lock again. Writes are
    safe without it: they are fenced by the epoch.
    """

    def __init__(self, settings: SessionSettings, holder: str) -> None:
        self._settings = settings
        self._holder = holder
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    def take(self, *, count_indexes: bool = False) -> tuple[int, str | None]:
        """Take the database, bring its tables up to date, and begin an epoch.

        Returns the epoch's number, and who held the database before if that run did not end in
        good order. Raises DatabaseRefused when another run holds the database, its tables are newer
        than this program or this role may not write to them, DatabaseAway, and psycopg.Error
        where the tables cannot be made.
        """
        connection = self._lock()
        try:
            with away():
                bring_up_to_date(connection, count_indexes=count_indexes)
                demand_rights(connection)
                row = connection.execute(
                    "SELECT holder FROM engine_epoch WHERE NOT ended"
                ).fetchone()
                epoch = raise_epoch(connection, self._holder)
        except BaseException:
            connection.close()
            raise
        self._keeper = threading.Thread(
            target=self._keep, args=(connection,), name="ownership", daemon=True
        )
        self._keeper.start()
        return epoch, None if row is None else str(row[0])

    def close(self) -> None:
        """Let the database go; the end of the process does the same.

        Waits a moment at most, as a server that is away may hold up the thread for longer.
        """
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join(CLOSE_SECONDS)

    def _keep(self, connection: Connection[Any]) -> None:
        outage = Outage(
            "the lock on the database is not held",
            "the lock on the database is held again",
            time.monotonic,
            first=KEEP_SECONDS,
            longest=max(KEEP_SECONDS, LONGEST_PAUSE),
        )
        pause = KEEP_SECONDS
        while not self._closed.wait(pause):
            pause = KEEP_SECONDS
            try:
                with away():
                    connection.execute("SELECT 1")
                continue
            except DatabaseAway:
                connection.close()
            try:
                connection = self._lock()
            except (DatabaseAway, DatabaseRefused) as error:
                if not self._closed.is_set():
                    pause = outage.failed(error)
            else:
                outage.succeeded()
        connection.close()

    def _lock(self) -> Connection[Any]:
        connection = open_session(self._settings, "supervisor")
        try:
            with away():
                deadline = time.monotonic() + GRACE_SECONDS
                while not _try_lock(connection):
                    if time.monotonic() > deadline:
                        holder = _holder(connection)
                        break
                    time.sleep(_PAUSE)
                else:
                    return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise DatabaseRefused(
            Reason.LOCKED,
            f"another run writes to this database ({holder}): stop it first, or give this one"
            " another database",
        )


def _try_lock(connection: Connection[Any]) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [OWNER_LOCK]).fetchone()
    return row is not None and bool(row[0])


def _holder(connection: Connection[Any]) -> str:
    known = connection.execute("SELECT to_regclass('engine_epoch')").fetchone()
    if known is None or known[0] is None:
        return "it is just starting"
    row = connection.execute("SELECT holder FROM engine_epoch").fetchone()
    return "it is just starting" if row is None else str(row[0])
