"""Waiting for backfills, and telling how far they are, or what they wait for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from actors.store.backfills import Progress
    from actors.store.listings import Listing

__all__ = ["Watch"]

SLICE: Final = 1_000
POLL_SECONDS: Final = 1.0
TELL_SECONDS: Final = 5.0
# Looking how far very many are takes a while itself.
LOOKED_AT_A_SECOND: Final = 20_000
EXIT_INCOMPLETE: Final = 1
NO_ENGINE: Final = "no engine runs on this database: start it, and this goes on by itself"
NO_FETCHER: Final = (
    "the engine that runs here does not fetch (it only starts, or fetcher.enabled or fetcher.repos"
    " is off, or its source is a capture): start one that does, and this goes on by itself"
)


class Watch:
    """Orders, and tells how far it is."""

    def __init__(self, connection: Any, *, again: bool, wait: bool, as_json: bool) -> None:
        self._connection = connection
        self._again = again
        self._wait = wait
        self._as_json = as_json
        self._dids: list[str] = []
        self._lists: list[str] = []
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

    def order_list(self, name: str) -> None:
        """Order the backfill of all accounts of a list."""
        from actors.store import listings

        listings.order(self._connection, name, again=self._again)
        self._lists.append(name)

    def see_it_done(self) -> None:
        """Wait until nothing of it waits any more, unless that is not wanted."""
        if not self._wait:
            return
        while (line := self._left()) is not None:
            missing = self._missing()
            self._tell(f"{line}; {missing}" if missing else line)
            time.sleep(max(POLL_SECONDS, len(self._dids) / LOOKED_AT_A_SECOND))

    def conclude(self, context: click.Context) -> None:
        """Say what came of it; exit code 1 where some were given up."""
        progress = self._progress()
        lists = self._listings()
        failed = progress.failed + (self._failed_of_all() if lists else 0)
        listed = sum(each.listed for each in lists)
        unread = [each.reason for each in lists if each.state == "failed"]
        done = progress.done + (listed - self._failed_of_all() if lists else 0)
        if self._as_json:
            of_all = {"accounts": sum(progress) + listed, "done": done, "waiting": progress.waiting}
            click.echo(json.dumps({**of_all, "failed": failed}))
        elif not self._wait:
            self._say_what_was_ordered()
        else:
            click.echo(f"{done} fetched, {failed} given up")
        for reason in unread:
            click.echo(f"a list of accounts could not be read on: {reason}", err=True)
        if failed and self._wait:
            click.echo("`run.py backfill --failed` lists what was given up, and why", err=True)
        if (failed or unread) and self._wait:
            context.exit(EXIT_INCOMPLETE)

    def _say_what_was_ordered(self) -> None:
        if self._lists:
            click.echo("the engine asks for the accounts, page by page, and fetches them")
        if self._dids or not self._lists:
            click.echo(f"{self._fresh} of {len(self._dids)} will be fetched by the engine")
        if missing := self._missing():
            click.echo(missing, err=True)

    def _left(self) -> str | None:
        """What is left, in one line; None: nothing."""
        from actors.store import backfills

        lines = []
        if (left := self._progress()).waiting:
            lines.append(f"{left.done} of {sum(left)} repositories fetched, {left.failed} given up")
        if lists := self._listings():
            queue = backfills.queue(self._connection)
            if queue.waiting or not all(each.is_over for each in lists):
                listed = sum(each.listed for each in lists)
                lines.append(
                    f"{listed} accounts listed so far, {queue.waiting} of them wait,"
                    f" {queue.failed} given up"
                )
        return "; ".join(lines) or None

    def _missing(self) -> str | None:
        """What has to be there for it to go on, and is not."""
        from actors.store import backfills
        from actors.store.decisions import engine_runs

        if not engine_runs(self._connection):
            return NO_ENGINE
        if not backfills.fetcher_runs(self._connection):
            return NO_FETCHER
        return None

    def _tell(self, line: str) -> None:
        if line != self._told and time.monotonic() - self._told_at >= TELL_SECONDS:
            click.echo(line, err=True)
            self._told, self._told_at = line, time.monotonic()

    def _progress(self) -> Progress:
        from actors.store import backfills

        parts = [
            backfills.progress(self._connection, self._dids[at : at + 50 * SLICE])
            for at in range(0, len(self._dids), 50 * SLICE)
        ]
        if not parts:
            return backfills.Progress(0, 0, 0)
        return backfills.Progress(*(sum(each) for each in zip(*parts, strict=True)))

    def _listings(self) -> list[Listing]:
        from actors.store import listings

        return [listings.listing(self._connection, name) for name in self._lists]

    def _failed_of_all(self) -> int:
        from actors.store import backfills

        return backfills.queue(self._connection).failed
