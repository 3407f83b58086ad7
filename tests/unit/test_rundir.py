"""The private directory of a run, its lock, and what dead runs left."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.rundir import LOCK_NAME, RunDirectory

HOLD = """
import sys
from engine.rundir import RunDirectory
with RunDirectory("run", sys.argv[1]) as run:
    (run.path / "shard-0.1").touch()
    print(run.path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("b")


def hold(base: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a run directory under `base` until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def test_only_its_owner_can_enter_it_and_it_is_gone_at_the_end(base: Path) -> None:
    with RunDirectory("run", base) as run:
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        (run.path / "control").touch()
    assert list(base.iterdir()) == []


def test_the_run_directory_of_a_living_run_is_left_alone(base: Path) -> None:
    process, path = hold(base)
    try:
        with RunDirectory("run", base) as run:
            assert run.path != path
            assert (path / "shard-0.1").exists()
    finally:
        end(process)
    assert not path.exists()


def test_what_a_killed_run_left_is_removed_by_the_next(base: Path) -> None:
    process, path = hold(base)
    process.send_signal(signal.SIGKILL)
    end(process)
    assert (path / "shard-0.1").exists()
    with RunDirectory("run", base):
        assert not path.exists()


def test_a_directory_that_is_not_a_run_is_left_alone(base: Path) -> None:
    open_to_all = base / "run-open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    (open_to_all / LOCK_NAME).touch()
    without_lock = base / "run-without-lock"
    without_lock.mkdir(mode=0o700)
    target = base / "target"
    target.mkdir(mode=0o700)
    (target / LOCK_NAME).touch()
    (base / "run-link").symlink_to(target)
    with RunDirectory("run", base):
        pass
    left = {path.name for path in base.iterdir()}
    assert left == {"run-open", "run-without-lock", "target", "run-link"}


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer than the system takes"):
        RunDirectory("run", tmp_path / ("x" * 60))


def test_a_runtime_directory_that_is_too_long_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with RunDirectory("skyshard-test") as run:
        assert long not in run.path.parents
        assert os.access(run.path, os.W_OK)
