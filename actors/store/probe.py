"""Whether the database answers: one question on a connection of its own."""

from actors.store.session import DatabaseAway, SessionSettings, away, open_session


def probe(settings: SessionSettings) -> str:
    """Ask the database for a sign of life; returns "" or, on one line, what is wrong with it."""
    try:
        with away(), open_session(settings, "monitor") as connection:
            connection.execute("SELECT 1 FROM engine_epoch")
    except DatabaseAway as error:
        return str(error)
    return ""
