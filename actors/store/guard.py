"""A small process that ends PostgreSQL when the process that started it was killed.

Nothing else does so reliably: PDEATHSIG fires when the starting *thread* ends and is lost at a
change of user, and PostgreSQL itself does not look after its parent. So the guard holds one end of
a socket pair; when the other end is closed, by whatever death, it stops what it watches: a clean
fast shutdown first, then by force. It knows its charge by a pidfd, which no other process can
inherit the number of.

This file is also the guard's program. It runs without site-packages, so it imports the standard
library only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["STOP_SIGNALS", "Guard", "wait_until_gone"]

# PostgreSQL's words for them: fast shutdown (with a checkpoint), immediate shutdown (recovery at
# the next start), and the last resort.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
_SECONDS: Final = (60.0, 10.0, 5.0)

_WATCH: Final = b"W"
_FORGET: Final = b"F"


class Guard:
    """Our end: starts the guard's process, and tells it what to watch."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def watch(self, pidfd: int) -> None:
        """Have the process of `pidfd` ended should we die. It replaces one watched before.

        Raises OSError when the guard itself is gone.
        """
        socket.send_fds(self._socket, [_WATCH], [pidfd])

    def close(self) -> None:
        """Let the guard go, and with it the promise about the watched process."""
        if self.alive:
            try:
                self._socket.sendall(_FORGET)
            except OSError:
                self._process.kill()  # it is on its way out; it must not act on what it watched
        self._socket.close()
        self._process.wait()


def wait_until_gone(pidfd: int, seconds: float) -> bool:
    """Whether the process of `pidfd` ends within `seconds`."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))


def _end(pidfd: int) -> None:
    for number, seconds in zip(STOP_SIGNALS, _SECONDS, strict=True):
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return
        if wait_until_gone(pidfd, seconds):
            return


def _main() -> None:
    """The guard's program: its standard input is its end of the socket pair."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its owner, not before
    Path("/proc/self/comm").write_text("skyshard-guard")
    owner = socket.socket(fileno=0)
    watched: int | None = None
    while True:
        try:
            message, descriptors, _flags, _address = socket.recv_fds(owner, 1, 1)
        except ConnectionError:
            break
        if not message:
            break
        if watched is not None:
            os.close(watched)
            watched = None
        if message == _WATCH:
            watched = descriptors[0]
    if watched is not None:
        _end(watched)


if __name__ == "__main__":
    _main()
