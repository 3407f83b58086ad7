"""Memory of every process over a long replay: what grows with the stream would show.

The whole program reads a synthetic network from a loopback relay; each process's private memory
(USS, MiB) is sampled all the time, its PostgreSQL sessions included. Compared are the medians (and
the peaks) just before an early event and before the last. Prints one JSON line.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import click
import psutil
import psycopg

from bench.end_to_end import ROOT, fresh_database, make_capture, server
from bench.relay_process import relay_process

MIB: Final = 1024 * 1024
# Samples are taken over this share of the stream before each of the two events.
SHARE: Final = 0.05

Sample = tuple[int, dict[str, float]]


def main_samples(child: subprocess.Popen[bytes], conninfo: str) -> list[Sample]:
    """Sample the program until it ends: the checkpoint, and MiB by name of the process."""
    samples: list[Sample] = []
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while child.poll() is None:
            row = connection.execute("SELECT max(cursor::bigint) FROM firehose_cursor").fetchone()
            sessions = connection.execute(
                "SELECT application_name, pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name <> ''"
                " AND pid <> pg_backend_pid()"
            ).fetchall()
            memory: dict[str, float] = {}
            for name, pid in sessions:
                memory[f"postgres: {name}"] = memory.get(f"postgres: {name}", 0) + private(pid)
            for process in psutil.Process(child.pid).children(recursive=True):
                memory[name_of(process.pid)] = private(process.pid)
            memory["supervisor"] = private(child.pid)
            samples.append((int((row and row[0]) or 0), memory))
            time.sleep(0.2)
    return samples


def private(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_full_info().uss) / MIB
    except psutil.NoSuchProcess:
        return 0.0


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def around(samples: list[Sample], event: int, events: int) -> dict[str, list[float]]:
    """Return each process's samples in the share of the stream that ends at an event."""
    found: dict[str, list[float]] = {}
    for position, memory in samples:
        if event - events * SHARE <= position <= event:
            for name, used in memory.items():
                found.setdefault(name, []).append(used)
    return found


@click.command()
@click.option("--events", default=200_000, help="Events of the synthetic network.")
@click.option("--early", default=50_000, help="The event that the last one is compared with.")
@click.option("--users", default=2_000, help="Accounts of the synthetic network.")
@click.option("--shards", default=2, help="Shard processes.")
def main(events: int, early: int, users: int, shards: int) -> None:
    """Compare each process's memory early and late in a long replay."""
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        capture = folder / "network.frames"
        make_capture(capture, events, users, 1)
        with (
            server(folder) as conninfo,
            relay_process(capture) as relay,
            fresh_database(conninfo, "memory") as database,
        ):
            command = [sys.executable, str(ROOT / "run.py"), "--json", "--until-caught-up"]
            command += ["--from-start", "--source", relay.url, "--shards", str(shards)]
            command += ["--database-url", database, "--log-level", "warning"]
            # The checkpoint tells how far it is, so it is saved often.
            environment = {
                **os.environ,
                "SKYSHARD_RESOLVER__ENABLED": "false",
                "SKYSHARD_FETCHER__ENABLED": "false",
                "SKYSHARD_MONITOR__PORT": "0",
                "SKYSHARD_INGEST__CHECKPOINT_SECONDS": "0.1",
            }
            with subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, env=environment
            ) as child:
                samples = main_samples(child, database)
                assert child.stdout is not None
                report = json.loads(child.stdout.read())
    before, after = around(samples, early, events), around(samples, events, events)
    figures = {
        "bench": "memory",
        "events": report["events"],
        "early": early,
        "events_per_second": report["events_per_second"],
        "mib": {
            name: {
                "early": round(median(before[name]), 1),
                "end": round(median(after[name]), 1),
                "ratio": round(median(after[name]) / median(before[name]), 3),
                "peak_early": round(max(before[name]), 1),
                "peak_end": round(max(after[name]), 1),
            }
            for name in sorted(before.keys() & after.keys())
            if median(before[name]) > 0
        },
    }
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
