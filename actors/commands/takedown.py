"""`run.py takedown`: accounts and records that the operator refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from actors.commands.opening import opened, shared_options
from actors.commands.waiting import no_wait, see_it_done

if TYPE_CHECKING:
    from actors.store.takedowns import Takedown

__all__ = ["takedown"]


@click.group()
def takedown() -> None:
    """Refuse accounts (DIDs) and records (at:// uris): add, list, remove."""


@takedown.command()
@click.argument("subjects", metavar="DID|URI...", nargs=-1, required=True)
@no_wait
@shared_options
@click.pass_context
def add(context: click.Context, /, subjects: Sequence[str], no_wait: bool, **given: Any) -> None:
    """Refuse these from now on, and remove what is stored of them.

    A handle stands for the DID of the user that has it in this index.
    """
    from actors.store import takedowns

    with opened(context, given) as (settings, conninfo, connection):
        named = _resolved(connection, subjects)
        fresh = takedowns.add(connection, named)
        for subject in named:
            click.echo(
                f"{subject}: {'taken down' if subject in fresh else 'was taken down before'}"
            )
        see_it_done(connection, conninfo, settings, named, wait=not no_wait)


@takedown.command()
@click.argument("subjects", metavar="DID|URI...", nargs=-1, required=True)
@shared_options
@click.pass_context
def remove(context: click.Context, /, subjects: Sequence[str], **given: Any) -> None:
    """Refuse these no more; what was removed or not stored comes back by a resync."""
    from actors.store import takedowns

    with opened(context, given) as (_settings, _conninfo, connection):
        named = _resolved(connection, subjects)
        found = takedowns.remove(connection, named)
    for subject in named:
        if subject in found:
            click.echo(f"{subject}: no longer taken down; its repository is marked for a resync")
        else:
            click.echo(f"{subject}: was not taken down")


@takedown.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@shared_options
@click.pass_context
def list_them(context: click.Context, /, as_json: bool, **given: Any) -> None:
    """Print every takedown, the oldest first."""
    from actors.store import takedowns

    with opened(context, given) as (_settings, _conninfo, connection):
        every = takedowns.every(connection)
    if as_json:
        click.echo(json.dumps([_plain(each) for each in every]))
        return
    if not every:
        click.echo("nothing is taken down")
    width = max((len(each.subject) for each in every), default=0)
    for each in every:
        going = "" if each.removed is None else f"  (being removed, {each.removed} so far)"
        handle = f"  {each.handle}" if each.handle else ""
        click.echo(f"{each.since:%Y-%m-%d %H:%M}  {each.subject:<{width}}{handle}{going}".rstrip())


def _plain(one: Takedown) -> dict[str, Any]:
    return {
        "subject": one.subject,
        "since": one.since.isoformat(timespec="seconds") + "Z",
        "handle": one.handle,
        "being_removed": one.removed is not None,
        "removed": one.removed,
    }


def _resolved(connection: Any, given: Sequence[str]) -> list[str]:
    from actors.store.subjects import resolve

    return list(dict.fromkeys(resolve(connection, subject) for subject in given))
