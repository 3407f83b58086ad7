"""The program backfills a network while its live traffic runs, and is killed over and over."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import pytest

from actors import capture
from bench.relay_process import relay_process
from tests import tables
from tests.backfilling import Size, Story, Traffic, apart_from, lag_of, lags
from tests.chaos.fetching_run import comparable
from tests.postgres_server import short_folder
from tests.program import ROOT, Program, program, wait_until
from tests.reference import Reference
from tests.servers.growing import growing

ON: Final = {
    "SKYSHARD_RESOLVER__ENABLED": "true",
    "SKYSHARD_RESOLVER__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_FETCHER__ENABLED": "true",
    "SKYSHARD_FETCHER__PATIENCE_SECONDS": "5",
    "SKYSHARD_NETWORK__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_NETWORK__ALLOW_PRIVATE_HOSTS": "true",
    "SKYSHARD_LEXICON__MODE": "on",
    # As the default: more than the tests' own.
    "SKYSHARD_SOURCE__IDLE_SECONDS": "3",
}
MIB: Final = 1024 * 1024
_STATES: Final = (
    "SELECT count(*) FILTER (WHERE state = 'done'), count(*) FILTER (WHERE state = 'waiting'),"
    " count(*) FILTER (WHERE state = 'failed') FROM engine_incomplete WHERE kind = 'repo'"
)
_LEFT: Final = (
    "SELECT (SELECT count(*) FROM engine_incomplete WHERE state = 'waiting')"
    " + (SELECT count(*) FROM engine_parked) + (SELECT count(*) FROM engine_outbox)"
    " + (SELECT count(*) FROM engine_resync_buffer)"
)


class Stage:
    """A network on loopback, and the program before it."""

    def __init__(self, folder: Path, size: Size, settings: Mapping[str, str]) -> None:
        self.settings = settings
        self.folder = folder
        self.data = folder / "data"
        self.conninfo = f"host={self.data}/postgres/run user=skyshard dbname=skyshard"
        self.story = Story(size)
        capture.write(folder / "history.frames", self.story.history)
        (folder / "documents.json").write_text(json.dumps(self.story.documents()))
        self.running: Program | None = None
        self.runs = 0
        self.kills: list[dict[str, Any]] = []
        self.memory: dict[str, float] = {}
        self._program = ExitStack()
        self._traffic: Traffic | None = None

    # --- the program

    @contextmanager
    def network(self) -> Iterator[None]:
        """Its servers and its relay."""
        with (
            growing(self.folder / "history.frames", self.folder / "documents.json") as servers,
            relay_process() as relay,
        ):
            self.places = servers.places
            self.environment = {
                **ON,
                **self.settings,
                "SKYSHARD_NETWORK__PLC_URL": servers.places.plc,
                "SKYSHARD_NETWORK__NAMESERVERS": servers.places.nameserver,
            }
            self.relay, self.servers = relay, servers
            with self._program:
                yield

    def start(self) -> None:
        """Run the program, as an operator starts it (again)."""
        self.runs += 1
        first = ("--from-start",) if self.runs == 1 else ()
        self._program.close()
        self.running = self._program.enter_context(
            program(
                *(self.folder, "--source", self.relay.url, "--data-dir", str(self.data)),
                *("--shards", "2", *first),
                environment=self.environment,
                name=f"run-{self.runs}",
            )
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command beside it."""
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments, "--data-dir", str(self.data)],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
        )

    # --- what is there

    def ask(self, sql: str) -> tuple[Any, ...]:
        with psycopg.connect(self.conninfo, autocommit=True, connect_timeout=5) as connection:
            row = connection.execute(sql.encode()).fetchone()
            assert row is not None
            return row

    def states(self) -> tuple[int, int, int]:
        """Repositories that are done, wait, and were given up; zeros where nobody answers."""
        try:
            done, waiting, failed = self.ask(_STATES)
        except psycopg.Error:
            return 0, 0, 0
        return done, waiting, failed

    def look_at_memory(self) -> None:
        assert self.running is not None
        for name, pid in self.running.processes().items():
            if name == "postgres":
                continue
            try:
                used = psutil.Process(pid).memory_full_info().uss / MIB
            except psutil.Error:
                continue
            self.memory[name] = max(self.memory.get(name, 0.0), round(used, 1))

    # --- kills

    def kill(self, whom: str) -> None:
        """SIGKILL while the backfill is under way, which is shown by the queue around it."""
        assert self.running is not None
        before = self.states()
        at = time.monotonic()
        if whom == "everything":
            below = self.running.processes()
            postmaster = self._postmaster()
            for pid in [self.running.child.pid, *below.values(), postmaster]:
                _kill(pid)
            self.running.child.wait()
            gone = [*below.values(), postmaster]
            wait_until(lambda: not any(map(psutil.pid_exists, gone)), "their end")
            self.start()
        elif whom == "postgres":
            _kill(self._postmaster())
        else:
            self.running.kill(whom)
        self.kills.append({"whom": whom, "at": at, "done": before[0], "waiting": before[1]})
        wait_until(lambda: sum(self.states()) > 0, "the database", self.running, 120.0)
        after = self.states()
        assert before[1] > 0, f"nothing was under way when {whom} was killed"
        assert after[1] > 0, f"nothing was left when {whom} came back"

    def _postmaster(self) -> int:
        return int((self.data / "postgres/data/postmaster.pid").read_text().split()[0])


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def backfill_beside_live(
    size: Size,
    kills: tuple[str, ...],
    seconds: float,
    quiet: float,
    settings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Backfill a whole network beside its live traffic, with kills spread over it. Before that the
    traffic is alone for `quiet` seconds.
    """
    with short_folder() as folder:
        stage = Stage(folder, size, settings or {})
        with stage.network():
            return _run(stage, kills, seconds, quiet)


def _run(stage: Stage, kills: tuple[str, ...], seconds: float, quiet: float) -> dict[str, Any]:
    accounts = stage.places.accounts
    listed = stage.folder / "accounts"
    listed.write_text("\n".join(accounts))
    stage.start()
    wait_until(lambda: stage.data.exists() and _is_up(stage), "the database", stage.running, 120)
    alone = time.monotonic() + quiet
    with Traffic(stage.story, stage.relay, stage.servers, stage.conninfo) as traffic:
        wait_until(
            lambda: bool(traffic.looks) and traffic.looks[-1][1] > 0, "events", stage.running
        )
        _wait(stage, traffic, lambda: time.monotonic() > alone, 120.0)
        before = lags(traffic.published, traffic.looks)
        ordered = stage.command("backfill", "--file", str(listed), "--no-wait")
        assert ordered.returncode == 0, ordered.stderr
        began = time.monotonic()
        for number, whom in enumerate(kills):
            share = (number + 0.5) / len(kills)
            _wait(stage, traffic, partial(_has_fetched, stage, share * len(accounts)), seconds)
            stage.kill(whom)
        _wait(stage, traffic, lambda: _is_over(stage, accounts), seconds)
        took = time.monotonic() - began
        traffic.be_quiet()
        _wait(stage, traffic, traffic.is_durable, 120.0)
        ended = began + took
        ways = lags(traffic.published, traffic.looks)
        lives = [each for each in ways if began <= each[0] <= ended]
        _wait(stage, traffic, lambda: stage.ask(_LEFT) == (0,), 600.0)
        same = stage.command("backfill", "--file", str(listed))
        assert (same.returncode, same.stdout) == (0, f"{len(accounts)} fetched, 0 given up\n"), same
        differ = _differences(stage)
        assert not differ, "\n".join(differ)
        moments = [each["at"] for each in stage.kills]
        return {
            "accounts": len(accounts),
            "records": stage.places.records,
            "history": len(stage.story.history),
            "live_events": len(stage.story.live),
            "rate": stage.story.size.rate,
            "seconds": round(took, 1),
            "accounts_per_second": round(len(accounts) / took, 1),
            "records_per_second": round(stage.places.records / took, 1),
            "kills": [{**each, "at": round(each["at"] - began, 1)} for each in stage.kills],
            "lag_before": lag_of(before)._asdict(),
            "lag": lag_of(lives)._asdict(),
            "lag_apart_from_kills": lag_of(apart_from(lives, moments))._asdict(),
            "memory_mib": stage.memory,
            "load": os.getloadavg(),
            "cores": os.cpu_count(),
        }


def _is_up(stage: Stage) -> bool:
    try:
        return stage.ask("SELECT count(*) FROM engine_incomplete") == (0,)
    except psycopg.Error:
        return False


def _has_fetched(stage: Stage, amount: float) -> bool:
    return stage.states()[0] >= amount


def _is_over(stage: Stage, accounts: list[str]) -> bool:
    done, waiting, failed = stage.states()
    return not waiting and done + failed >= len(accounts)


def _wait(stage: Stage, traffic: Traffic, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert stage.running is not None
        assert traffic.broken is None, traffic.broken
        assert stage.running.child.poll() is None, stage.running.tail()
        assert time.monotonic() < deadline, f"{stage.states()}\n{stage.running.tail()}"
        stage.look_at_memory()
        time.sleep(0.5)


def _differences(stage: Stage) -> list[str]:
    reference = Reference()
    for frame in [*stage.story.history, *stage.story.live]:
        reference.frame(frame)
    expected = comparable(reference.tables())
    return tables.differences(expected, comparable(tables.read_tables(stage.conninfo)))


@pytest.mark.soak
def test_a_backfill_beside_live_traffic_comes_to_the_whole_though_actors_are_killed() -> None:
    # So slowly that it is under way for longer than an actor takes to come back.
    slowly = {
        "SKYSHARD_FETCHER__BACKFILL_RECORDS_PER_SECOND": "40",
        "SKYSHARD_FETCHER__PATIENCE_SECONDS": "1",
        "SKYSHARD_FETCHER__RETRY_MIN_SECONDS": "1",
        "SKYSHARD_FETCHER__RETRY_MAX_SECONDS": "2",
    }
    kills = ("pds_fetcher", "shard-0")
    backfill_beside_live(Size(30, 500, 50.0), kills, 120.0, 0.0, slowly)


@pytest.mark.soak
def test_killed_five_times_a_backfill_of_ten_thousand_accounts_comes_to_the_whole() -> None:
    kills = ("pds_fetcher", "shard-0", "everything", "postgres", "shard-1")
    figures = backfill_beside_live(Size(10_000, 150_000, 500.0), kills, 3_600.0, 20.0)
    print(json.dumps({"bench": "backfill_beside_live", **figures}))
