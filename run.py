"""Skyshard: reads an AT Protocol firehose and keeps a PostgreSQL index of it.

Alone it runs until it is stopped (Ctrl-C or SIGTERM; twice to hurry). Exit codes: 0 stopped or
caught up; 1 verify found differences, explain nothing, or backfill gave some up; 65 the source's
data cannot be used; 69 the database or the source cannot be reached; 70 a child crashed too often,
or a bug; 71, 74, 77 the system, the disk or a permission is in the way; 75 another run has the
database or the port, try later; 78 a setting is unknown or impossible; 130, 143 interrupted before
it had caught up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from actors.commands.backfill import backfill
from actors.commands.explain import explain
from actors.commands.forget import forget
from actors.commands.opening import database_of, logging_of, present, settings_of, shared_options
from actors.commands.takedown import takedown
from actors.commands.verify import verify
from config import VERSION
from config.loader import ConfigError
from config.logging import Logging

if TYPE_CHECKING:
    from config.settings import Settings
    from engine.status import Status
    from engine.supervisor import Outcome

EXIT_BUG: Final = 70
EXIT_CONFIG: Final = 78


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="skyshard")
@click.option("--shards", metavar="N", help="Shard processes [one per core].")
@click.option("--source", metavar="SOURCE", help="wss://host, a capture file, or demo.")
@click.option("--cursor", metavar="N", help="Start at this cursor.")
@click.option("--from-start", is_flag=True, help="Start at the oldest that the source has.")
@click.option("--since", metavar="DURATION", help="Start this long ago: 90s, 2h, 3d.")
@click.option("--until-caught-up", is_flag=True, default=None, help="Stop once all is durable.")
@click.option("--json", "as_json", is_flag=True, help="Print the report of the run only.")
@click.option("--plc-url", metavar="URL", help="Directory of did:plc.")
@click.option(
    "--allow-private-hosts", is_flag=True, default=None, help="For development networks only."
)
@shared_options
@click.pass_context
def cli(context: click.Context, /, **given: Any) -> None:
    """Reads an AT Protocol firehose and keeps a PostgreSQL index of it.

    Every setting is in config/default.toml, with its environment variable.
    """
    context.obj = given
    if context.invoked_subcommand is None:
        context.exit(run(settings_of(given), as_json=given["as_json"]))


@cli.command()
@shared_options
@click.pass_context
def migrate(context: click.Context, /, **given: Any) -> None:
    """Bring the tables of the database to this version, and stop."""
    from actors.store.migrate import migrate as bring_up_to_date

    settings = settings_of(context.obj | present(given))
    with database_of(settings) as conninfo:
        changed = bring_up_to_date(conninfo, count_indexes=settings.index.count_indexes)
    click.echo("the tables were brought up to date" if changed else "the tables are up to date")


for command in (verify, takedown, forget, explain, backfill):
    cli.add_command(command)


def run(settings: Settings, *, as_json: bool) -> int:
    """Runs the topology to its end; returns the exit code."""
    from actors.monitor import demand_address
    from actors.report import complete, show
    from actors.topology import build
    from engine.rundir import RunDirectory
    from engine.supervisor import Supervisor

    if settings.monitor.enabled:
        # Before anything else starts, which may take a while.
        demand_address(settings.monitor.host, settings.monitor.port)
    with RunDirectory() as folder:
        topology = build(settings, folder.path, logging_of(settings))
        with progress(settings, as_json=as_json) as tick:
            outcome = Supervisor(topology, folder.path, on_tick=tick).run()
    if outcome.report is not None and outcome.exit_code == 0:
        report = complete(outcome.report, outcome.restarts)
        if not as_json:
            click.echo(show(report))
        click.echo(json.dumps(report))
    if outcome.exit_code:
        # What went wrong stands above all that it took to stop.
        return _refuse(f"{outcome.message} (exit code {outcome.exit_code})", outcome.exit_code)
    return exit_code(settings, outcome)


def exit_code(settings: Settings, outcome: Outcome) -> int:
    """Of a run; one that was to catch up and was interrupted before has not done its job."""
    if settings.run.until_caught_up and outcome.stopped_by in signal.Signals.__members__:
        return 128 + signal.Signals[outcome.stopped_by]
    return outcome.exit_code


@contextmanager
def progress(settings: Settings, *, as_json: bool) -> Iterator[Callable[[Status], None]]:
    """What the supervisor calls each second: a live view on a terminal, else lines of the log."""
    from actors.progress import LogProgress, live_progress

    terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if terminal and not as_json and settings.log.format == "text":
        with live_progress() as view:
            yield view.tick
    else:
        yield LogProgress(settings.log.progress_seconds).tick


def main() -> int:
    """The program; returns the exit code. What an operator can mend is one line, no traceback."""
    from engine.child import ServiceFailed

    Logging()("main")
    try:
        return cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        return _refuse(error.format_message(), EXIT_CONFIG)
    except ConfigError as error:
        return _refuse(str(error), EXIT_CONFIG)
    except ServiceFailed as error:
        return _refuse(error.message, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - a bug must not end with the exit code of verify
        import structlog

        structlog.get_logger("main").exception("the program ends by a bug; please report it")
        return EXIT_BUG


def _refuse(message: str, code: int) -> int:
    click.echo("skyshard: " + " ".join(message.split()), err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
