"""Whether the database answers, asked by whoever only wants to know that."""

from typing import Final

import psycopg

from actors.store.database import connect

__all__ = ["reach"]

STATEMENT_TIMEOUT: Final = "3s"


def reach(conninfo: str) -> str:
    """One question over a new connection: "" when it was answered, else why not, in one line."""
    try:
        with connect(
            conninfo,
            application_name="skyshard monitor",
            connect_seconds=3.0,
            autocommit=True,
            settings={"statement_timeout": STATEMENT_TIMEOUT},
        ) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""
