"""`run.py backfill`: whole repositories of accounts, and what could not be fetched."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from actors.commands.opening import opened, shared_options
from actors.commands.waiting import counted

__all__ = ["backfill"]

SLICE: Final = 1_000
POLL_SECONDS: Final = 1.0
TELL_SECONDS: Final = 5.0
# Looking how far very many are takes a while itself.
LOOKED_AT_A_SECOND: Final = 20_000
MOST_LISTED: Final = 10_000
EXIT_INCOMPLETE: Final = 1


@click.command()
@click.argument("accounts", metavar="DID...", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Accounts, one a line; # begins a comment.",
)
@click.option("--all", "everybody", is_flag=True, help="Every account that this index knows.")
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
    has it in this index.
    """
    from actors.store import backfills

    sources = [bool(accounts), path is not None, everybody, followed_by is not None]
    if failed and (retry or any(sources)):
        raise click.UsageError("--failed lists everything: give nothing with it")
    if not failed and not retry and not any(sources):
        raise click.UsageError("say whose: DID..., --file, --all or --followed-by")
    with opened(context, given) as (settings, _conninfo, connection):
        if failed:
            _list(backfills.given_up(connection, MOST_LISTED), as_json=as_json)
            return
        if retry:
            subjects = _named(connection, accounts, path, records=True)
            amount = backfills.retry(connection, subjects or None)
            click.echo(f"tried again: {amount}")
            return
        named = _named(connection, accounts, path)
        if not (settings.fetcher.enabled and settings.fetcher.repos):
            click.echo("fetcher.enabled or fetcher.repos is off: nothing is fetched", err=True)
        watch = _Watch(connection, again=again, wait=not no_wait, as_json=as_json)
        if followed_by is not None:
            one = _resolved(connection, followed_by)
            # Whom it follows is known when its own repository is there.
            watch.order([one])
            watch.see_it_done()
            named = [*named, *backfills.followed_by(connection, one)]
        if everybody:
            for part in _known(connection):
                watch.order(part)
        watch.order(named)
        watch.see_it_done()
        watch.conclude(context)


class _Watch:
    """Orders, and tells how far it is."""

    def __init__(self, connection: Any, *, again: bool, wait: bool, as_json: bool) -> None:
        self._connection = connection
        self._again = again
        self._wait = wait
        self._as_json = as_json
        self._dids: list[str] = []
        self._fresh = 0
        self._told = ""
        self._told_at = 0.0

    def order(self, dids: Sequence[str]) -> None:
        """Order the backfill of accounts."""
        from actors.store import backfills

        for at in range(0, len(dids), SLICE):
            part = list(dids[at : at + SLICE])
            self._fresh += backfills.order(self._connection, part, again=self._again).fresh
            self._dids += part

    def see_it_done(self) -> None:
        """Wait until nothing of it waits any more, unless that is not wanted."""
        from actors.store.decisions import engine_runs

        if not self._wait:
            return
        while (left := self._progress()).waiting:
            running = engine_runs(self._connection)
            line = f"{left.done} of {sum(left)} repositories fetched, {left.failed} given up"
            if not running:
                line += "; no engine runs on this database: start one"
            if line != self._told and time.monotonic() - self._told_at >= TELL_SECONDS:
                click.echo(line, err=True)
                self._told, self._told_at = line, time.monotonic()
            time.sleep(max(POLL_SECONDS, len(self._dids) / LOOKED_AT_A_SECOND))

    def conclude(self, context: click.Context) -> None:
        """Say what came of it; exit code 1 where some were given up."""
        progress = self._progress()
        if self._as_json:
            click.echo(json.dumps({"accounts": sum(progress), **progress._asdict()}))
        elif not self._wait:
            click.echo(f"{self._fresh} of {len(self._dids)} will be fetched by the engine")
        else:
            click.echo(f"{progress.done} fetched, {progress.failed} given up")
        if progress.failed and self._wait:
            click.echo("`run.py backfill --failed` lists what was given up, and why", err=True)
            context.exit(EXIT_INCOMPLETE)

    def _progress(self) -> Any:
        from actors.store import backfills

        parts = [
            backfills.progress(self._connection, self._dids[at : at + 50 * SLICE])
            for at in range(0, len(self._dids), 50 * SLICE)
        ]
        return (
            backfills.Progress(*(sum(each) for each in zip(*parts, strict=True)))
            if parts
            else (backfills.Progress(0, 0, 0))
        )


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
