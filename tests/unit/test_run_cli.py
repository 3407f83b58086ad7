"""The command line: what it refuses, how it ends, and its commands on a real database."""

import io
import json
import os
import pty
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import structlog

import run
from actors.commands.opening import settings_of
from actors.progress import LogProgress, Rate
from actors.report import complete, show
from actors.store.migrate import migrate as bring_up_to_date
from actors.summary import summarise
from config import VERSION
from config.loader import load
from engine.status import Status
from engine.supervisor import Outcome
from tests.postgres_server import make_server, short_folder
from tests.postgres_server import start as start_server
from tests.unit.test_monitor import child, ingest

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 120


def skyshard(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the program and returns how it ended; SKYSHARD_ variables are only those given."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SKYSHARD_") and name != "DATABASE_URL"
    }
    return subprocess.run(
        [sys.executable, "run.py", *arguments],
        cwd=ROOT,
        env=inherited | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shrads", "3"], "--shards"),
        (["--shards", "x"], "--shards: run.shards"),
        (["--shards", "-1"], "--shards: run.shards"),
        (["rnu"], "No such command 'rnu'"),
        (["--since", "oldest"], "--since: 'oldest' is no duration"),
        (["--cursor", "live"], "--cursor: 'live' is no cursor"),
        (["--cursor", "1", "--from-start"], "give one start only"),
        (["--config", "/no/such.toml"], "/no/such.toml: cannot be read"),
        (["--source", "https://host"], "--source: 'https://host' is no websocket address"),
        (["--source", "/etc"], "--source: /etc is a folder"),
        (["--plc-url", "host"], "--plc-url: network.plc_url"),
        (["--log-level", "loud"], "expected one of debug, info, warning, error"),
        (["verify", "--log-format", "xml"], "expected one of text, json"),
    ],
)
def test_what_cannot_be_is_one_line_and_78(arguments: list[str], says: str) -> None:
    ended = skyshard(*arguments)
    assert ended.returncode == 78
    assert ended.stdout == ""
    assert ended.stderr.startswith("skyshard: ")
    assert ended.stderr.count("\n") == 1
    assert says in ended.stderr


def test_an_unknown_environment_variable_is_one_line_and_78() -> None:
    ended = skyshard(environment={"SKYSHARD_SHARDS": "2"})
    assert ended.returncode == 78
    assert ended.stderr == (
        "skyshard: SKYSHARD_SHARDS: no setting has this environment variable;"
        " did you mean SKYSHARD_RUN__SHARDS?\n"
    )


def test_a_database_that_cannot_be_reached_is_one_line_and_69() -> None:
    ended = skyshard("verify", "--database-url", "postgresql://me:hunter2@127.0.0.1:1/x")
    assert ended.returncode == 69
    assert ended.stderr.count("\n") == 1
    assert "hunter2" not in ended.stderr


def test_help_and_version_need_nothing() -> None:
    assert "--until-caught-up" in skyshard("--help").stdout
    assert VERSION in skyshard("--version").stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_migrate_then_verify_on_the_embedded_database() -> None:
    with short_folder() as folder:
        where = ["--data-dir", str(folder / "data")]
        early = skyshard("verify", *where)
        assert early.returncode == 78
        assert early.stderr.startswith(
            f"skyshard: there is no database in {folder / 'data'}: check --data-dir (the default"
        )
        assert list(folder.iterdir()) == []
        assert skyshard("migrate", *where).stdout == "the tables were brought up to date\n"
        # Options may stand before the command as well.
        assert skyshard(*where, "migrate").stdout == "the tables are up to date\n"
        ended = skyshard("verify", *where)
        assert (ended.returncode, ended.stdout) == (0, "no differences\n")


def test_verify_looks_at_the_embedded_database_along_with_the_run_that_has_it() -> None:
    with short_folder() as folder:
        server = make_server(folder)
        where = ["--data-dir", str(folder / "data")]
        try:
            start_server(server)
            early = skyshard("verify", *where)
            assert (early.returncode, "run `run.py migrate` first" in early.stderr) == (78, True)
            bring_up_to_date(server.conninfo())
            assert skyshard("verify", *where).stdout == "no differences\n"
            with psycopg.connect(server.conninfo()) as connection:
                connection.execute(
                    "INSERT INTO engine_user_aggregations (did, posts_count)"
                    " VALUES ('did:plc:somebody', 1)"
                )
            ended = skyshard("verify", *where)
            assert ended.returncode == 1
            assert ended.stdout.endswith("\n1 difference\n")
            assert skyshard("migrate", *where).returncode == 75
            assert server.poll_ready() is True
        finally:
            server.stop(10.0)


def _settings(**given: Any) -> Any:
    return settings_of({"log_level": "error", **given})


def test_a_start_that_is_given_wins_over_the_checkpoint() -> None:
    assert not load().source.ignore_checkpoint
    for given, start in (
        ({"cursor": "17"}, "17"),
        ({"from_start": True}, "oldest"),
        ({"since": "2h"}, "2h"),
    ):
        source = _settings(**given).source
        assert (str(source.start), source.ignore_checkpoint) == (start, True)


def test_an_interrupted_catch_up_is_no_success() -> None:
    stopped = Outcome(0, "stopped by SIGTERM", "SIGTERM")
    assert run.exit_code(_settings(until_caught_up=True), stopped) == 143
    assert run.exit_code(_settings(), stopped) == 0
    assert run.exit_code(_settings(until_caught_up=True), Outcome(0, "", "finish")) == 0
    assert run.exit_code(_settings(), Outcome(70, "", "gave up")) == 70


def test_the_report_is_made_of_the_tallies_of_all_actors() -> None:
    tallies = {
        "events.commit": 20,
        "events.identity": 10,
        "commits": 19,
        "ops": 25,
        "ops.likes.put": 24,
        "ops.posts.delete": 1,
        "drop.too_big": 4,
    }
    summary = summarise(tallies, {"bad_frame": 2, "too_big": 1})
    said = {**summary, "checkpoint": 77, "seconds": 2.0, "events_per_second": 15.0}
    report = complete(said, {"shard-0": 1})
    assert list(report)[:6] == ["events", "commits", "ops", "drops", "restarts", "checkpoint"]
    assert (report["events"], report["commits"], report["ops"]) == (30, 19, 25)
    assert (report["drops"], report["restarts"]) == ({"bad_frame": 2, "too_big": 5}, {"shard-0": 1})
    assert report["applied"] == {"likes put": 24, "posts delete": 1}
    assert json.loads(json.dumps(report)) == report
    assert "too_big" in show(report)


def test_the_rate_survives_a_restart_of_the_counter() -> None:
    rate = Rate()
    for second, counter in enumerate((0, 100, 200, 50, 150)):
        latest = rate.add(float(second), counter)
    assert latest == (200 + 150) / 4


def _status(phase: str, up: float) -> Status:
    shards = (
        child("shard-0", group="shard", backlog=7),
        child("shard-1", group="shard", state="starting", note="recovering", restarts=1),
    )
    return Status(1.0, up, phase, 1, "", (*shards, ingest(lag=2.5)))


def test_progress_is_a_log_line_at_intervals() -> None:
    with structlog.testing.capture_logs() as lines:
        progress = LogProgress(10.0)
        for second in range(25):
            progress.tick(_status("running" if second > 15 else "starting", float(second)))
    first, second_line = lines
    assert first["event"] == "starting"
    assert first["waiting_for"] == "shard-1 (recovering)"
    assert second_line["event"] == "progress"
    assert second_line["backlog"] == "shard-0:7 shard-1:0"
    assert (second_line["lag_seconds"], second_line["restarts"]) == (2.5, 1)


_LIVE: Final = """
import os, subprocess, sys
from actors.progress import live_progress
from tests.unit.test_run_cli import _status
with live_progress() as view:
    view.tick(_status("running", 65.0))
    child = "import os; os.write(2, b'a child logs\\\\n')"
    subprocess.run([sys.executable, "-c", child], check=True)
    print("the parent logs", file=sys.stderr)
    view.tick(_status("running", 66.0))
print("all is restored", file=sys.stderr)
"""


def test_the_live_view_stays_whole_below_the_log_of_all_processes() -> None:
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _LIVE],
        cwd=ROOT,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"COLUMNS": "140", "TERM": "xterm"},
    ) as process:
        os.close(terminal)
        shown = io.BytesIO()
        try:
            while data := os.read(master, 65536):
                shown.write(data)
        except OSError:
            pass  # how a terminal ends whose last process is gone
        assert process.wait(PATIENCE) == 0
    os.close(master)
    text = shown.getvalue().decode()
    for words in ("a child logs", "the parent logs", "lag 2.5s", "restarts 1", "shard-1"):
        assert words in text
    assert text.rstrip().endswith("all is restored")
    assert text.index("a child logs") < text.index("all is restored")
