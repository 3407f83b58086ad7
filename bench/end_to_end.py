"""Events per second from a loopback relay to the checkpoint, PostgreSQL included.

For each number of shards: a relay that serves a synthetic network as fast as it is read, the whole
program with its processes, a fresh database on an embedded server. Beside it, in the same run and
on the same server: the bare COPY of the same rows into the same tables with the same indexes, by as
many connections as shards. Prints one JSON line.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from actors.store.migrate import migrate
from actors.store.schema import TABLES
from actors.store.standing import standing_database
from bench.relay_process import relay_process
from config.loader import load

ROOT: Final = Path(__file__).parent.parent
# What the engine keeps for itself is no part of what a bulk load would write.
COPIED: Final = tuple(
    name
    for name in TABLES
    if not name.startswith("engine_") or name.endswith("aggregations") or name == "engine_repos"
)


def make_capture(path: Path, events: int, users: int, seed: int) -> None:
    """Write a synthetic network's frames to a capture file."""
    command = [sys.executable, "-m", "bench.network", "--events", str(events)]
    command += ["--users", str(users), "--seed", str(seed), "--out", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An embedded server with the program's default settings; gives its connection string."""
    options = load(None, {}, {}).embedded
    run_dir = folder / "r"
    run_dir.mkdir(mode=0o755)
    with standing_database("", folder / "data", run_dir, options, connect_seconds=30) as conninfo:
        yield conninfo


@contextmanager
def fresh_database(conninfo: str, name: str) -> Iterator[str]:
    """A new database with our tables, dropped afterwards."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
        )
    try:
        fresh = make_conninfo(conninfo, dbname=name)
        migrate(fresh)
        yield fresh
    finally:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


def run_program(source: str, conninfo: str, shards: int) -> dict[str, Any]:
    """Run the program until it has caught up with the source; returns its report."""
    command = [sys.executable, str(ROOT / "run.py"), "--json", "--until-caught-up"]
    command += ["--from-start", "--source", source, "--shards", str(shards)]
    command += ["--database-url", conninfo, "--log-level", "warning"]
    environment = {
        **os.environ,
        "SKYSHARD_MONITOR__PORT": "0",
        "SKYSHARD_RESOLVER__ENABLED": "false",
        "SKYSHARD_FETCHER__ENABLED": "false",
    }
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, env=environment)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def unload(conninfo: str) -> dict[str, bytes]:
    """Return every table's rows in COPY's binary form."""
    unloaded = {}
    with psycopg.connect(conninfo) as connection:
        for table in COPIED:
            buffer = io.BytesIO()
            statement = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(table))
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for chunk in copy:
                    buffer.write(chunk)
            unloaded[table] = buffer.getvalue()
    return unloaded


def bare_copy(conninfo: str, rows: dict[str, bytes], connections: int) -> float:
    """COPY the rows into empty tables with their indexes; returns the seconds it took."""
    # The largest first, each to the connection that has least to do.
    loads: list[list[str]] = [[] for _ in range(connections)]
    sizes = [0] * connections
    for table in sorted(rows, key=lambda name: -len(rows[name])):
        least = sizes.index(min(sizes))
        loads[least].append(table)
        sizes[least] += len(rows[table])

    def load_tables(tables: Sequence[str]) -> None:
        with psycopg.connect(conninfo) as connection:
            for table in tables:
                statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(
                    sql.Identifier(table)
                )
                with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    copy.write(rows[table])

    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(load_tables, loads))
    return time.perf_counter() - began


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most of some figures."""
    return {
        "median": round(statistics.median(values), 1),
        "least": round(min(values), 1),
        "most": round(max(values), 1),
    }


@click.command()
@click.option("--events", default=60_000, help="Events of the synthetic network.")
@click.option("--users", default=2_000, help="Accounts of the synthetic network.")
@click.option("--seed", default=1, help="Seed of the synthetic network.")
@click.option("--rounds", default=3, help="How often everything is measured.")
@click.option("--shards", default="1,2", help="Numbers of shards.")
def main(events: int, users: int, seed: int, rounds: int, shards: str) -> None:
    """Measure the program from end to end beside the bare COPY of the same rows."""
    numbers = [int(number) for number in shards.split(",")]
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    copies: dict[int, list[float]] = {number: [] for number in numbers}
    rows = 0
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        capture = folder / "network.frames"
        make_capture(capture, events, users, seed)
        with server(folder) as conninfo, relay_process(capture) as relay:
            for turn in range(rounds):
                for number in numbers:
                    with fresh_database(conninfo, f"program_{turn}_{number}") as database:
                        report = run_program(relay.url, database, number)
                        unloaded = unload(database)
                        with psycopg.connect(database) as connection:
                            rows = sum(_count(connection, table) for table in COPIED)
                    rates[number].append(report["events_per_second"])
                    with fresh_database(conninfo, f"copy_{turn}_{number}") as database:
                        seconds = bare_copy(database, unloaded, number)
                    copies[number].append(events / seconds)
    figures = {
        "bench": "end_to_end",
        "events": events,
        "users": users,
        "rows": rows,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "events_per_second": {str(number): spread(rates[number]) for number in numbers},
        "bare_copy_events_per_second": {str(number): spread(copies[number]) for number in numbers},
        "share_of_bare_copy": {
            str(number): round(
                statistics.median(rates[number]) / statistics.median(copies[number]), 3
            )
            for number in numbers
        },
    }
    if len(numbers) > 1:
        first, last = numbers[0], numbers[-1]
        ratios = [b / a for a, b in zip(rates[first], rates[last], strict=True)]
        figures[f"speedup_{last}_over_{first}"] = spread([round(ratio, 3) for ratio in ratios])
    click.echo(json.dumps(figures))


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    ).fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    main()
