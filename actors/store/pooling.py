"""Tells a proxy that pools by transaction (or statement) from a real session with a server.

The writers keep prepared statements, settings and locks in their session. Behind such a proxy each
transaction may meet another server process, so all that silently gets lost, or leaks to others.
"""

from __future__ import annotations

from typing import Final

import psycopg

__all__ = ["pools_by_transaction"]

_LOOKS: Final = 4
_PID: Final = "SELECT pg_backend_pid()"


def pools_by_transaction(one: psycopg.Connection, other: psycopg.Connection) -> bool:
    """Whether two autocommit connections, made alike and both open, lack a server process each.

    A session has one process from its beginning to its end, and shares it with nobody. It asks for
    nothing but the number of that process, so no proxy needs to be known by name:

    * a proxy that takes its servers in turn gives `one` another process from time to time;
    * one that takes the last used gives `other` the process that `one` has just used;
    * while `other` holds that process in a transaction, `one` gets another.

    Raises psycopg.Error when the connections fail.
    """
    pids = {_pid(one) for _ in range(_LOOKS)}
    if len(pids) > 1:
        return True
    try:
        with other.transaction():
            pids.add(_pid(other))
            if len(pids) == 1:
                return True
            pids.add(_pid(one))
    except psycopg.errors.ProtocolViolation:
        return True  # how PgBouncer refuses a transaction when it pools by statement
    return len(pids) != 2


def _pid(connection: psycopg.Connection) -> int:
    row = connection.execute(_PID, prepare=False).fetchone()
    assert row is not None
    return int(row[0])
