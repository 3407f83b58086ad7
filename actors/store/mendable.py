"""What an operator can mend in a database, told in one line each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from actors.store.refusal import DatabaseRefused, Reason
from actors.store.rights import NEEDED
from actors.store.session import DatabaseAway

# No schema that a role may use looks to PostgreSQL as if there were none.
NO_RIGHTS: Final = (errors.InsufficientPrivilege, errors.InvalidSchemaName)
NOT_MIGRATED: Final = (errors.UndefinedTable, errors.UndefinedColumn)
# Rows that break a unique index, a view where a table should be.
IN_THE_WAY: Final = (psycopg.IntegrityError, errors.WrongObjectType)


@contextmanager
def mendable(label: str) -> Iterator[None]:
    """Turn what an operator can mend into DatabaseRefused; other errors are bugs and go through.

    `label` names the database in the message.
    """
    try:
        yield
    except NOT_MIGRATED as error:
        raise DatabaseRefused(
            Reason.NOT_MIGRATED,
            f"{label} has not the tables of this version ({_first_line(error)}); run"
            " `run.py migrate` first",
        ) from error
    except NO_RIGHTS as error:
        raise DatabaseRefused(
            Reason.NO_RIGHTS, f"{label} refuses this role: {_first_line(error)}; {NEEDED}"
        ) from error
    except IN_THE_WAY as error:
        raise DatabaseRefused(
            Reason.IN_THE_WAY, f"what {label} holds is in the way: {_first_line(error)}"
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, DatabaseAway) as error:
        raise DatabaseRefused(Reason.UNREACHABLE, f"{label} cannot be used: {error}") from error


def _first_line(error: psycopg.Error) -> str:
    return str(error).partition("\n")[0]
