"""`run.py forget`: a user asks that nothing of theirs be stored."""

from __future__ import annotations

from typing import Any

import click

from actors.commands.opening import opened, shared_options
from actors.commands.waiting import counted, no_wait, see_it_done

__all__ = ["forget"]


@click.command()
@click.argument("account", metavar="DID")
@no_wait
@shared_options
@click.pass_context
def forget(context: click.Context, /, account: str, no_wait: bool, **given: Any) -> None:
    """Remove all that is stored of a user, and store nothing of theirs from now on.

    Sets data_collection_forbidden in user_settings; when the user takes that back, the repository
    is marked for a resync.
    """
    from actors.commands.letters import without
    from actors.store.forget import forget as forget_user
    from actors.store.subjects import resolve

    with opened(context, given) as (settings, conninfo, connection):
        did = resolve(connection, account, only_accounts=True)
        done = forget_user(connection, did, without)
        again = " (it was before)" if done.before else ""
        click.echo(f"{did}: nothing of it is stored from now on{again}")
        if done.letters:
            click.echo(f"{counted(done.letters, 'dead letter')} of it removed")
        see_it_done(connection, conninfo, settings, [did], wait=not no_wait)
