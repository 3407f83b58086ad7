"""A command of run.py, run in the process of the test."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import run


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> Ended:
    """Run `run.py` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["run.py", *arguments, "--log-level", "error"]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run.main()
    finally:
        sys.argv = before
    return Ended(code, out.getvalue(), err.getvalue())
