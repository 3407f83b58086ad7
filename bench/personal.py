"""What a personal index costs where nothing in the stream is for it: the filter, and the program.

`filter` is ingest's own code alone, on one core: frames of a synthetic network, all of strangers,
in microseconds of processor time each, with `members` accounts that are none of them. `program` is
the whole of it, from a loopback relay to the checkpoint, with the private memory of every process
(USS, MiB) at the end. Prints one JSON line.

    python -m bench.personal
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
import psutil
import psycopg

from actors import capture
from actors.ingest_metrics import IngestMetrics
from actors.intake import Intake
from actors.position import Position
from actors.sequence import Sequence
from actors.shard_window import ShardWindow
from actors.store.checkpoint import Checkpoint
from actors.store.fence import Fence
from bench.end_to_end import ROOT, fresh_database, make_capture, server
from bench.memory import name_of, private
from bench.network_account import did_of
from bench.relay_process import relay_process
from engine.metrics import Metrics

NOBODY: Final = "did:plc:" + "a" * 24
ANOTHER_SEED: Final = 4_711


class _Nowhere:
    """Where messages would go."""

    def tell(self, *_message: Any, **_token: Any) -> None: ...

    def room(self, _to: str) -> tuple[int, int]:
        return 1 << 30, 1 << 40

    def after(self, *_callback: Any) -> None: ...


def filtering(frames: list[bytes], members: int, rounds: int) -> float:
    """Microseconds of processor time for each frame that is left out, in the best round."""
    chosen = {did_of(ANOTHER_SEED, index) for index in range(members)}
    best = float("inf")
    for _ in range(rounds):
        metrics = IngestMetrics(Metrics())
        intake = Intake(
            "relay",
            [ShardWindow("shard-0", 1 << 30, 1 << 40, 1 << 30, 1 << 40)],
            linger=1.0,
            post=_Nowhere(),
            sequence=Sequence(),
            position=Position(Checkpoint("relay", psycopg.connect, Fence("ingest", 1, 1))),
            metrics=metrics,
            tries=3,
            members=chosen,
        )
        intake.connected()
        began = time.process_time()
        for frame in frames:
            intake.take(frame)
        best = min(best, time.process_time() - began)
        assert metrics.foreign.value > 0.9 * len(frames)
    return round(best / len(frames) * 1e6, 2)


def program(source: str, conninfo: str, last: int) -> dict[str, Any]:
    """Read a stream in which nobody is known, up to its last event; returns the figures."""
    command = [sys.executable, str(ROOT / "run.py"), "--from-start", "--source", source]
    command += ["--shards", "1", "--database-url", conninfo, "--log-level", "error"]
    environment = {
        **os.environ,
        "SKYSHARD_PERSONAL__ACCOUNTS": NOBODY,
        # Nobody is there to be asked.
        "SKYSHARD_NETWORK__PLC_URL": "http://127.0.0.1:9",
        "SKYSHARD_MONITOR__PORT": "0",
        "SKYSHARD_INGEST__CHECKPOINT_SECONDS": "0.05",
    }
    seen: list[tuple[float, float, int]] = []
    with (
        subprocess.Popen(command, cwd=ROOT, env=environment) as child,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        try:
            while not seen or seen[-1][2] < last:
                assert child.poll() is None, "it ended"
                cursor, below = _cursor(connection), _below(child.pid)
                if cursor and "ingest" in below:
                    times = psutil.Process(below["ingest"]).cpu_times()
                    seen.append((time.monotonic(), times.user + times.system, cursor))
                time.sleep(0.02)
            memory = {name: round(private(pid), 1) for name, pid in below.items()}
            memory["supervisor"] = round(private(child.pid), 1)
        finally:
            child.terminate()
    (began, spent_before, first), (ended, spent, _) = seen[0], seen[-1]
    frames = last - first
    return {
        "frames": frames,
        "frames_per_second": round(frames / (ended - began)),
        "ingest_microseconds": round((spent - spent_before) / frames * 1e6, 1),
        "mib": dict(sorted(memory.items())),
    }


def _cursor(connection: psycopg.Connection[Any]) -> int:
    try:
        row = connection.execute("SELECT max(cursor::bigint) FROM firehose_cursor").fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    return int((row and row[0]) or 0)


def _below(pid: int) -> dict[str, int]:
    below = psutil.Process(pid).children(recursive=True)
    return {name_of(process.pid): process.pid for process in below}


@click.command(help="Print what a personal index costs, as one line of JSON.")
@click.option("--events", default=200_000, show_default=True, help="Events of the network.")
@click.option("--users", default=2_000, show_default=True, help="Accounts of the network.")
@click.option("--members", default=5_000, show_default=True, help="Accounts that are let through.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of the filter.")
def main(events: int, users: int, members: int, rounds: int) -> None:
    """Measure, and print one JSON line."""
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "network.frames"
        make_capture(path, events, users, 1)
        frames = list(capture.read(path))[:50_000]
        alone = {str(size): filtering(frames, size, rounds) for size in (1, members)}
        with (
            server(folder) as conninfo,
            relay_process(path) as relay,
            fresh_database(conninfo, "personal") as database,
        ):
            whole = program(relay.url, database, events)
    size = round(sum(map(len, frames)) / len(frames))
    filters = {"microseconds_by_members": alone, "bytes_a_frame": size}
    click.echo(json.dumps({"bench": "personal", "filter": filters, "program": whole}))


if __name__ == "__main__":
    main()
