"""What a million waiting operations cost: events per second and memory, beside none that wait.

The whole program reads a synthetic network from a loopback relay into a fresh database, in turn
with an empty registry and with one that holds many entries, all of subjects that never come.
Meanwhile the registry's private memory is sampled; afterwards it is known how much processor time
the program and PostgreSQL took, which tells more than the rate where others use the machine too. A
run of seconds has the filling of the filter and a whole round of upkeep in it, which otherwise come
at the start and once a minute; what their parts take is measured by itself as well. Prints one JSON
line.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import psutil
import psycopg

from actors.messages import RegistryWork
from actors.store.registry import look, prepare
from actors.store.registry_sweep import Key, awaited_keys, overdue, standing
from actors.upkeep import RECONCILED_ROWS, SLICE_ROWS
from actors.waiting_filter import WaitingFilter
from bench.end_to_end import ROOT, fresh_database, make_capture, server, spread
from bench.relay_process import relay_process
from config.loader import load

MIB: Final = 1024 * 1024
# As they come: records of many authors in the order of time, each of another post.
FILL_SQL: Final = """
INSERT INTO engine_pending (uri, awaited, author, kind, created_at)
SELECT 'at://' || a.did || '/app.bsky.feed.like/3k' || lpad(n::text, 11, '0'),
    'at://did:plc:' || left(md5('subject' || n), 24) || '/app.bsky.feed.post/3k'
        || lpad(n::text, 11, '0'), a.did, 'like', localtimestamp - (%s - n) * interval '40 ms'
FROM generate_series(1, %s) n,
    LATERAL (SELECT 'did:plc:' || left(md5((n %% 50000)::text), 24) AS did) a
"""


def fill(conninfo: str, entries: int) -> None:
    """Put entries into an empty registry."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(FILL_SQL, [entries, entries])
        connection.execute("VACUUM ANALYZE engine_pending")


class Run(NamedTuple):
    """Events per second, processor microseconds per event, and the most private memory that the
    registry had, in MiB.
    """

    rate: float
    cpu: float
    memory: float


def run_program(source: str, conninfo: str, shards: int) -> Run:
    """Run the program until it has caught up."""
    command = [sys.executable, str(ROOT / "run.py"), "--json", "--until-caught-up"]
    command += ["--from-start", "--source", source, "--shards", str(shards)]
    command += ["--database-url", conninfo, "--log-level", "warning"]
    environment = {
        **os.environ,
        "SKYSHARD_MONITOR__PORT": "0",
        "SKYSHARD_RESOLVER__ENABLED": "false",
        "SKYSHARD_FETCHER__ENABLED": "false",
    }
    most = 0.0
    began = _cpu_seconds(conninfo)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment) as child:
        while child.poll() is None:
            most = max(most, _registry_memory(child.pid))
            time.sleep(0.1)
        assert child.stdout is not None
        report = json.loads(child.stdout.read())
    cpu = 1e6 * (_cpu_seconds(conninfo) - began) / report["events"]
    return Run(float(report["events_per_second"]), cpu, most)


def _cpu_seconds(conninfo: str) -> float:
    """Return the processor time of our children and of PostgreSQL's that have ended, and what
    PostgreSQL's others took so far.
    """
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    with psycopg.connect(conninfo) as connection:
        server = psutil.Process(connection.info.backend_pid).parent()
    assert server is not None
    times = server.cpu_times()
    total = ours.ru_utime + ours.ru_stime + times.children_user + times.children_system
    for process in server.children():
        with suppress(psutil.Error):
            own = process.cpu_times()
            total += own.user + own.system
    return total


def _registry_memory(program: int) -> float:
    for process in psutil.Process(program).children(recursive=True):
        try:
            if Path(f"/proc/{process.pid}/comm").read_text().strip() == "pending":
                return float(process.memory_full_info().uss) / MIB
        except (OSError, psutil.Error):
            continue
    return 0.0


def upkeep(conninfo: str, entries: int) -> dict[str, float]:
    """Return what the parts of a round of upkeep take, and the filter, in milliseconds."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        prepare(connection)
        waiting = WaitingFilter(load(None, {}, {}).pending.max_rows)
        figures = {
            "count": _milliseconds(lambda: standing(connection)),
            "fill_filter": _milliseconds(lambda: _fill(connection, waiting)),
            "reconcile": _milliseconds(lambda: _reconcile(connection)),
            "rows_reconciled": min(entries, RECONCILED_ROWS),
            "filter_mib": waiting.size / MIB,
        }
        new = [f"at://did:plc:new/app.bsky.feed.like/{number}" for number in range(20_000)]
        took = _milliseconds(lambda: sum(map(waiting.may_wait, new)))
        figures["ask_filter_us"] = round(1000 * took / len(new), 2)
        wrong = sum(map(waiting.may_wait, new))
        figures["filter_mistaken_share"] = wrong / len(new)
        work = [RegistryWork(arrived=tuple(new[:500]))]
        look(connection, work)
        figures["look_500"] = _milliseconds(
            lambda: look(connection, work, may_wait=waiting.may_wait)
        )
        figures["look_500_unfiltered"] = _milliseconds(lambda: look(connection, work))
    return figures


def _fill(connection: psycopg.Connection[Any], waiting: WaitingFilter) -> None:
    waiting.begin()
    after = ""
    while keys := awaited_keys(connection, after, SLICE_ROWS):
        waiting.fill(keys)
        after = keys[-1]
    waiting.finish()


def _reconcile(connection: psycopg.Connection[Any]) -> None:
    at: Key | None = Key()
    for _ in range(RECONCILED_ROWS // SLICE_ROWS):
        if at is not None:
            at = overdue(connection, at, SLICE_ROWS).next


def _milliseconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return round(1000 * (time.perf_counter() - began), 1)


@click.command()
@click.option("--events", default=60_000, help="Events of the synthetic network.")
@click.option("--users", default=2_000, help="Accounts of the synthetic network.")
@click.option("--entries", default=1_000_000, help="Operations that wait.")
@click.option("--rounds", default=3, help="How often everything is measured.")
@click.option("--shards", default=2, help="Shard processes.")
def main(events: int, users: int, entries: int, rounds: int, shards: int) -> None:
    """Compare the program with an empty and a full registry."""
    runs: dict[int, list[Run]] = {0: [], entries: []}
    disk = 0
    parts: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        capture = folder / "network.frames"
        make_capture(capture, events, users, 1)
        with server(folder) as conninfo, relay_process(capture) as relay:
            for turn in range(rounds):
                for waiting in (0, entries):
                    with fresh_database(conninfo, f"pending_{turn}_{waiting}") as database:
                        if waiting:
                            fill(database, waiting)
                            parts = upkeep(database, waiting)
                            disk = _size(database)
                        runs[waiting].append(run_program(relay.url, database, shards))
    figures = {
        "bench": "pending",
        "events": events,
        "entries": entries,
        "rounds": rounds,
        "shards": shards,
        "cores": os.cpu_count(),
        "events_per_second": _spreads(runs, "rate"),
        "cpu_us_per_event": _spreads(runs, "cpu"),
        "registry_mib": _spreads(runs, "memory"),
        "table_mib": round(disk / MIB, 1),
        "upkeep_ms": parts,
    }
    click.echo(json.dumps(figures))


def _spreads(runs: Mapping[int, Sequence[Run]], name: str) -> dict[str, dict[str, float]]:
    return {
        str(waiting): spread([getattr(run, name) for run in of_waiting])
        for waiting, of_waiting in runs.items()
    }


def _size(conninfo: str) -> int:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT pg_total_relation_size('engine_pending')").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    main()
