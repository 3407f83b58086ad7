"""The example of the engine, run as its reader would run it."""

import subprocess
import sys


def test_the_example_runs_as_real_processes_and_counts_right() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.example"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    letters = sum(
        c.isalpha() for c in "An old silent pond a frog jumps into the pond splash silence again"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str({"letters": letters})
