"""What every command does first: its options, its settings, its log, its database."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from config.loader import ConfigError, load
from config.logging import Logging
from config.units import parse_duration

if TYPE_CHECKING:
    from config.settings import Settings

__all__ = ["database_of", "logging_of", "opened", "present", "settings_of", "shared_options"]

_FLAGS: Final = {
    "shards": "run.shards",
    "source": "run.source",
    "database_url": "run.database_url",
    "data_dir": "run.data_dir",
    "until_caught_up": "run.until_caught_up",
    "plc_url": "network.plc_url",
    "allow_private_hosts": "network.allow_private_hosts",
    "log_level": "log.level",
    "log_format": "log.format",
}


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command."""
    for option in (
        click.option("--log-format", metavar="text|json", help="Form of the log."),
        click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
        click.option("--config", type=Path, metavar="FILE", help="Settings that differ (TOML)."),
        click.option("--data-dir", metavar="DIR", help="Folder of the embedded PostgreSQL."),
        click.option(
            "--database-url", metavar="URL", help="PostgreSQL to use [DATABASE_URL; embedded]."
        ),
    ):
        command = option(command)
    return command


def present(given: dict[str, Any]) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in given.items() if value is not None}


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings of all layers. Raises ConfigError."""
    flags: dict[str, tuple[str, object]] = {
        key: ("--" + name.replace("_", "-"), given[name])
        for name, key in _FLAGS.items()
        if given.get(name) is not None
    }
    starts = [name for name in ("cursor", "from_start", "since") if given.get(name)]
    if len(starts) > 1:
        names = " and ".join("--" + name.replace("_", "-") for name in starts)
        raise ConfigError(f"{names}: give one start only")
    for name in starts:
        flag = "--" + name.replace("_", "-")
        flags["source.start"] = (flag, "oldest" if name == "from_start" else given[name])
        flags["source.ignore_checkpoint"] = (flag, True)
        if name == "cursor" and not given[name].isdecimal():
            raise ConfigError(f"--cursor: {given[name]!r} is no cursor; give a number")
        if name == "since":
            try:
                parse_duration(given[name])
            except ValueError as error:
                raise ConfigError(f"--since: {error}") from error
    settings = load(given.get("config"), os.environ, flags)
    logging_of(settings)("main")
    return settings


def logging_of(settings: Settings) -> Logging:
    """What sets up the log of a process, called with its name."""
    return Logging(settings.log.level, settings.log.format, colour=sys.stderr.isatty())


def _data_dir(settings: Settings) -> Path | None:
    return Path(settings.run.data_dir).expanduser() if settings.run.data_dir else None


@contextmanager
def database_of(settings: Settings, *, only_look: bool = False) -> Iterator[str]:
    """How to connect to the database, which is up as long as the block lasts.

    With `only_look` none is made, and one that a run has started serves as well.
    """
    from actors.store.standing import standing_database
    from engine.rundir import RunDirectory

    with (
        RunDirectory() as folder,
        standing_database(
            settings.run.database_url,
            _data_dir(settings),
            folder.path,
            settings.embedded,
            connect_seconds=settings.database.connect_seconds,
            only_look=only_look,
        ) as conninfo,
    ):
        yield conninfo


class Opened(NamedTuple):
    """A database to decide on: its settings, how to connect, a connection."""

    settings: Settings
    conninfo: str
    connection: Any


@contextmanager
def opened(context: click.Context, given: dict[str, Any]) -> Iterator[Opened]:
    """The database of a command, beside a run that may be using it.

    What the operator named and does not exist is a ClickException.
    """
    from actors.store.decisions import looking
    from actors.store.subjects import BadSubject

    settings = settings_of(dict(context.find_root().obj) | present(given))
    with database_of(settings, only_look=True) as conninfo, looking(conninfo) as connection:
        try:
            yield Opened(settings, conninfo, connection)
        except BadSubject as error:
            raise click.ClickException(str(error)) from error
