"""`run.py backfill`: whole repositories of accounts, and what could not be fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from actors.commands.backfill_watch import SLICE, Watch
from actors.commands.opening import opened, shared_options
from actors.commands.waiting import counted

__all__ = ["backfill"]

MOST_LISTED: Final = 10_000


@click.command()
@click.argument("accounts", metavar="DID...", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Accounts, one a line; # begins a comment.",
)
@click.option("--all", "everybody", is_flag=True, help="Every account that the run's relay lists.")
@click.option("--listed-by", metavar="URL", help="Every account that this server lists.")
@click.option("--known", is_flag=True, help="Every account that this index knows.")
@click.option("--followed-by", metavar="DID", help="An account, and all whom it follows.")
@click.option("--again", is_flag=True, help="Also those that were fetched before.")
@click.option("--no-wait", is_flag=True, help="Return at once; the engine fetches.")
@click.option("--failed", is_flag=True, help="List what was given up, repositories or records.")
@click.option("--retry", is_flag=True, help="Try that again: all of it, or of the accounts given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@shared_options
@click.pass_context
def backfill(
    context: click.Context,
    /,
    accounts: Sequence[str],
    path: Path | None,
    everybody: bool,
    listed_by: str | None,
    known: bool,
    followed_by: str | None,
    again: bool,
    no_wait: bool,
    failed: bool,
    retry: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Fetch the whole repositories of accounts, behind live events.

    The engine that runs on this database does it; it goes on where it was after any end, and this
    command may be given again to see how far it is. A handle stands for the DID of the user that
    has it in this index. Of lists of accounts the engine asks for a page as long as few wait; who
    is not active is left out.
    """
    from actors.store import backfills
    from actors.store.listings import RELAY

    lists = [RELAY] if everybody else []
    if listed_by is not None:
        lists.append(_server(listed_by))
    sources = [bool(accounts), path is not None, bool(lists), known, followed_by is not None]
    if failed and (retry or any(sources)):
        raise click.UsageError("--failed lists everything: give nothing with it")
    if not failed and not retry and not any(sources):
        raise click.UsageError(
            "say whose: DID..., --file, --all, --listed-by, --known, --followed-by"
        )
    with opened(context, given) as (_settings, _conninfo, connection):
        if failed:
            _list(backfills.given_up(connection, MOST_LISTED), as_json=as_json)
            return
        if retry:
            subjects = _named(connection, accounts, path, records=True)
            amount = backfills.retry(connection, subjects or None)
            click.echo(f"tried again: {amount}")
            return
        named = _named(connection, accounts, path)
        watch = Watch(connection, again=again, wait=not no_wait, as_json=as_json)
        if followed_by is not None:
            one = _resolved(connection, followed_by)
            # Whom it follows is known when its own repository is there.
            watch.order([one])
            watch.see_it_done()
            named = [*named, *backfills.followed_by(connection, one)]
        if known:
            for part in _known(connection):
                watch.order(part)
        for name in lists:
            watch.order_list(name)
        watch.order(named)
        watch.see_it_done()
        watch.conclude(context)


def _named(
    connection: Any, accounts: Sequence[str], path: Path | None, *, records: bool = False
) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None else []
    texts = [*accounts, *(line.partition("#")[0].strip() for line in lines)]
    named = (_resolved(connection, text, records=records) for text in texts if text)
    return list(dict.fromkeys(named))


def _resolved(connection: Any, text: str, *, records: bool = False) -> str:
    from actors.store.subjects import resolve

    return resolve(connection, text, only_accounts=not records)


def _server(url: str) -> str:
    """The URL of a server as lists are named by it."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise click.UsageError(f"--listed-by {url!r}: give a server, as https://pds.example")
    return f"{parts.scheme}://{parts.netloc}"


def _known(connection: Any) -> Iterator[list[str]]:
    from actors.store import backfills

    after = ""
    while part := backfills.known(connection, after, SLICE):
        yield part
        after = part[-1]


def _list(every: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        plain = [{**each._asdict(), "since": each.since.isoformat() + "Z"} for each in every]
        click.echo(json.dumps(plain))
        return
    if not every:
        click.echo("nothing was given up")
    for each in every:
        click.echo(
            f"{each.since:%Y-%m-%d %H:%M}  {each.kind:<7}  {each.key}"
            f"  {each.reason} after {counted(each.attempts, 'attempt')} ({each.cause})"
        )
