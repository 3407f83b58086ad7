"""Waiting until what was ordered to be removed is gone, or doing it where no engine runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from config.settings import Settings

__all__ = ["counted", "no_wait", "see_it_done"]

POLL_SECONDS: Final = 0.5
TELL_SECONDS: Final = 2.0


def no_wait(command: Any) -> Any:
    """The option of commands that order something to be removed."""
    return click.option(
        "--no-wait", is_flag=True, help="Return at once; the engine removes what is stored."
    )(command)


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def see_it_done(
    connection: Any, conninfo: str, settings: Settings, subjects: Sequence[str], *, wait: bool
) -> None:
    """Say who removes what is stored of these subjects, and unless told not to, wait for it.

    Where no engine runs it is done here, as a run that holds the database meanwhile.
    """
    from actors.store.decisions import engine_runs, purges_of
    from actors.store.refusal import DatabaseRefused, Reason

    if not wait:
        when = "within seconds" if engine_runs(connection) else "at the next start"
        click.echo(f"what is stored of it is removed by the engine, {when}")
        return
    tell = _teller()
    by_engine = False
    removed = 0
    while purges := purges_of(connection, subjects):
        if engine_runs(connection):
            by_engine = True
            removed = max(removed, sum(purge.removed for purge in purges))
            tell(removed)
            time.sleep(POLL_SECONDS)
            continue
        try:
            _here(conninfo, settings, [purge.subject for purge in purges], tell)
        except DatabaseRefused as refused:
            # An engine that starts at this very moment does it then.
            if refused.reason is not Reason.LOCKED:
                raise
    rest = "" if by_engine else "; the notifications it made go when an engine runs"
    click.echo(f"nothing is stored of it any more{rest}")


def _here(
    conninfo: str, settings: Settings, subjects: Sequence[str], tell: Callable[[int], None]
) -> None:
    from actors.store.purge_here import purge_here
    from actors.store.session import SessionSettings

    of = settings.database
    session = SessionSettings(
        conninfo,
        of.connect_seconds,
        of.statement_timeout_seconds,
        of.lock_timeout_seconds,
        of.outage_seconds,
    )
    purge_here(session, f"process {os.getpid()} on {socket.gethostname()}", subjects, tell)


def _teller() -> Callable[[int], None]:
    """What says how far it is, now and then, on standard error."""
    said_at = time.monotonic()
    said = 0

    def tell(removed: int) -> None:
        nonlocal said, said_at
        if removed != said and time.monotonic() - said_at >= TELL_SECONDS:
            click.echo(f"{counted(removed, 'record')} removed so far", err=True)
            said, said_at = removed, time.monotonic()

    return tell
