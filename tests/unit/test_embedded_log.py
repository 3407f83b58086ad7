"""The one line that tells why the server failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.store.account import choose_account
from actors.store.server_log import ServerLog

STAMP = "2026-11-24 07:45:42.050 UTC [10912] "


@pytest.fixture
def log(tmp_path: Path) -> ServerLog:
    return ServerLog(tmp_path / "log")


def said(log: ServerLog, *lines: str) -> str:
    with log.open_start(choose_account(None)) as file:
        file.write("\n".join(lines).encode())
    return log.reason()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), ""),
        (
            (f'{STAMP} FATAL:  lock file "postmaster.pid" already exists', f"{STAMP} HINT:  Is?"),
            'FATAL:  lock file "postmaster.pid" already exists',
        ),
        (
            (f"{STAMP} FATAL:  first", f"{STAMP} FATAL:  the database system is starting up"),
            "FATAL:  first",
        ),
        (
            (f"{STAMP} PANIC:  could not locate", f"{STAMP} FATAL:  terminating"),
            "PANIC:  could not locate",
        ),
        (
            (f"{STAMP} FATAL:  could not write: No space left on device", f"{STAMP} PANIC:  gone"),
            "FATAL:  could not write: No space left on device",
        ),
        (("initdb: error: no such user",), "initdb: error: no such user"),
        (
            ("libssl.so.3: cannot open shared object file",),
            "libssl.so.3: cannot open shared object file",
        ),
        ((f"{STAMP} LOG:  redirecting log output to logging collector process",), ""),
    ],
)
def test_the_most_telling_line_is_the_reason(
    log: ServerLog, lines: tuple[str, ...], reason: str
) -> None:
    assert said(log, *lines) == reason


def test_what_an_earlier_run_said_does_not_count(log: ServerLog) -> None:
    assert said(log, "FATAL:  old") == "FATAL:  old"
    day = log.folder / "postgres-Mon.log"
    day.write_text(f"{STAMP} FATAL:  older, No space left on device\n")
    assert said(log) == ""
    assert not log.disk_was_full()
    with day.open("a") as file:
        file.write(f"{STAMP} ERROR:  new\n")
    assert log.reason() == "ERROR:  new"


def test_a_log_that_was_begun_anew_counts_from_its_start(log: ServerLog) -> None:
    said(log)
    day = log.folder / "postgres-Mon.log"
    day.write_text("x" * 1000)
    said(log)
    day.write_text(f"{STAMP} PANIC:  now\n")
    assert log.reason() == "PANIC:  now"


def test_a_huge_log_is_read_from_its_end(log: ServerLog) -> None:
    said(log)
    (log.folder / "postgres-Mon.log").write_text("noise\n" * 100_000 + f"{STAMP} PANIC:  end\n")
    assert log.reason() == "PANIC:  end"


def test_bytes_that_are_no_text_do_no_harm(log: ServerLog) -> None:
    with log.open_start(choose_account(None)) as file:
        file.write(b"FATAL:  \xff\xfe\n")
    assert log.reason().startswith("FATAL:  ")
