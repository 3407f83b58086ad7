"""The embedded server as a service of a real supervisor, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.store.data_folder import DataFolder
from actors.store.leftover import server_processes
from tests.postgres_server import short_folder

ROOT = Path(__file__).parents[2]


class Supervised:
    """The process of `postgres_supervised`."""

    def __init__(self, folder: Path) -> None:
        self.data = DataFolder(folder / "data").data
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.postgres_supervised", str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def wait_until_nothing_runs(self) -> None:
        deadline = time.monotonic() + 120
        while server_processes(self.data):
            assert time.monotonic() < deadline, server_processes(self.data)
            time.sleep(0.02)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    with short_folder() as folder:
        running = Supervised(folder)
        try:
            yield running
        finally:
            running.end()
            running.wait_until_nothing_runs()


def test_it_is_started_restarted_after_a_kill_and_stopped(supervised: Supervised) -> None:
    first = supervised.told()
    assert first["status"]["pid"] == first["postmaster"]
    assert first["status"]["memory"] > 1_000_000
    os.kill(first["postmaster"], signal.SIGKILL)
    second = supervised.told()
    assert second["postmaster"] != first["postmaster"]
    assert second["status"]["pid"] == second["postmaster"]
    supervised.process.send_signal(signal.SIGTERM)
    end = supervised.told()
    assert end["code"] == 0
    assert end["restarts"] == {"postgres": 1}
    assert supervised.process.wait(120) == 0
    assert server_processes(supervised.data) == []
    assert not psutil.pid_exists(second["guard"])
    assert not (supervised.data / "postmaster.pid").exists(), "the shutdown was not clean"
    left = {path.name for path in supervised.folder.iterdir()}
    assert left == {"data"}, "a run folder was left behind"


def test_a_killed_supervisor_leaves_no_server_and_the_next_one_tidies_up(
    supervised: Supervised,
) -> None:
    supervised.told()
    supervised.process.kill()
    supervised.wait_until_nothing_runs()
    assert not (supervised.data / "postmaster.pid").exists(), "the shutdown was not clean"
    following = Supervised(supervised.folder)
    try:
        following.told()
        following.process.send_signal(signal.SIGTERM)
        assert following.told()["code"] == 0
        assert following.process.wait(120) == 0
    finally:
        following.end()
    assert {path.name for path in supervised.folder.iterdir()} == {"data"}


def test_what_cannot_work_ends_the_run_with_its_exit_code(supervised: Supervised) -> None:
    supervised.told()
    second = Supervised(supervised.folder)
    try:
        end = second.told()
        assert end["code"] == 75
        assert "is in use by process" in end["message"]
        assert end["restarts"] == {}
    finally:
        second.end()
