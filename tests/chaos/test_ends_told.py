"""What an operator reads at the end of the program: the reason, last, and no false alarm."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_server import make_server, short_folder
from tests.program import Program, program, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def last_line(running: Program) -> str:
    return running.log_path.read_text().splitlines()[-1]


def test_a_stop_in_order_is_no_alarm_in_any_log(folder: Path, tmp_path: Path) -> None:
    where = ("--source", "demo", "--shards", "1", "--data-dir", str(folder / "data"))
    with program(tmp_path, *where) as running:
        wait_until(lambda: running.said("ingest is ready"), "a run", running)
        running.child.send_signal(signal.SIGTERM)
        assert running.wait() == 0
    assert [line for line in running.log() if line["level"] != "info"] == []
    told = "".join(log.read_text() for log in make_server(folder).folder.log.iterdir())
    assert "database system is shut down" in told
    # Whoever is connected when the server stops, or asks it then, makes such a line.
    assert "terminating connection" not in told
    assert "is shutting down" not in told


def test_the_reason_of_a_failure_is_the_last_line(database: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.frames"
    broken.write_bytes(b"no capture")
    where = ("--source", str(broken), "--shards", "1", "--database-url", database)
    with program(tmp_path, *where) as running:
        assert running.wait() == 65
    assert last_line(running).startswith("skyshard: ")
    assert last_line(running).endswith(" (exit code 65)")
    assert "is down" not in last_line(running)


def test_a_taken_port_is_told_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {"SKYSHARD_MONITOR__PORT": str(port)}
        where = ("--source", "demo", "--data-dir", str(folder / "data"))
        with program(tmp_path, *where, environment=variables) as running:
            assert running.wait() == 75
    assert running.log_path.read_text().count("\n") == 1
    assert last_line(running).startswith(f"skyshard: 127.0.0.1 port {port} is taken")
    assert list(folder.iterdir()) == []
