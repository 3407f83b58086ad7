"""What a killed run left running on a data folder: found, stopped cleanly, and waited for."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from actors.store.refusal import DatabaseRefused, Reason

__all__ = ["group_members", "server_processes", "take_over"]

_log = logging.getLogger(__name__)

# How long a fast shutdown (its checkpoint may write much), then an immediate one may take.
_FAST_SECONDS = 120.0
_IMMEDIATE_SECONDS = 15.0
_KILL_SECONDS = 10.0


def server_processes(data: Path) -> list[psutil.Process]:
    """Every process of a PostgreSQL server on `data`, whether its postmaster lives or not.

    All of them have the data folder as their working directory, and no other program has.
    """
    wanted = str(data)
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == wanted and process.name() == "postgres":
                found.append(process)
        except psutil.Error:
            continue  # gone meanwhile, or another user's, who cannot have opened our data
    return found


def group_members(group: int) -> list[psutil.Process]:
    """Every process of a process group that still runs; a zombie does not."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue  # gone meanwhile
    return found


def take_over(data: Path) -> Iterator[str]:
    """Stop the server that is left on `data`; what it waits for, until none is left.

    The caller holds the lock on the folder, so whatever runs there belongs to nobody. Raises
    DatabaseRefused when it cannot be stopped.
    """
    pid_file = data / "postmaster.pid"
    processes = server_processes(data)
    if processes:
        listed = ", ".join(str(process.pid) for process in processes)
        _log.warning("stopping the PostgreSQL that an earlier run left on %s: %s", data, listed)
        yield from _stop(data)
        _log.info("the PostgreSQL of the earlier run has stopped")
    _remove_stale(pid_file)


def _stop(data: Path) -> Iterator[str]:
    ladder = (
        (signal.SIGINT, _FAST_SECONDS, "the clean stop of a PostgreSQL left by an earlier run"),
        (signal.SIGQUIT, _IMMEDIATE_SECONDS, "the immediate stop of a PostgreSQL left behind"),
        (signal.SIGKILL, _KILL_SECONDS, "the end of a PostgreSQL left behind"),
    )
    for number, seconds, waiting in ladder:
        processes = server_processes(data)
        postmasters = [process for process in processes if not _is_backend(process)]
        # Only the postmaster can stop cleanly. Its children without it can do no good.
        _signal(postmasters or processes, number if postmasters else max(number, signal.SIGQUIT))
        limit = seconds if postmasters else min(seconds, _IMMEDIATE_SECONDS)
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            yield waiting
            if not server_processes(data):
                return
    left = ", ".join(str(process.pid) for process in server_processes(data))
    if left:
        raise DatabaseRefused(
            Reason.LOCKED,
            f"PostgreSQL processes of an earlier run on {data} do not end: {left};"
            " they hang in the system, look at its disks",
        )


def _is_backend(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return True  # it has just ended
    return not words or words[0].startswith("postgres: ")


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # checks that the pid is still the same process
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied as error:
            raise DatabaseRefused(
                Reason.LOCKED,
                f"a PostgreSQL of another user (process {process.pid}) runs on the data folder:"
                " stop it first",
            ) from error


def _remove_stale(pid_file: Path) -> None:
    """Remove a pid file that would keep PostgreSQL from starting although no server is there.

    It believes the file when *some* process has that pid, and refuses one that was cut short by a
    full disk. A pid that no process has is its own business: it then also looks for leftovers in
    shared memory.
    """
    try:
        first = pid_file.read_bytes().split(b"\n", 1)[0].strip()
    except OSError:
        return  # none, or unreadable: then the server tells so
    if first.isdigit() and not psutil.pid_exists(int(first)):
        return
    _log.warning(
        "removing the stale %s: it names %r, which is no PostgreSQL of this folder",
        pid_file,
        first.decode(errors="replace"),
    )
    pid_file.unlink()
