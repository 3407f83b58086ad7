"""The lock on the folder of the embedded server: one run at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from actors.store.refusal import DatabaseRefused, Reason

__all__ = ["ServerLock"]


class ServerLock:
    """An flock on a file, which the kernel takes back when its holder dies, however it dies.

    The file holds the pid of its last holder, to tell others who it is; that text decides nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, unless we hold it already.

        Raises DatabaseRefused when another process holds it, or the file cannot be locked.
        """
        if self.held:
            return
        descriptor = None
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = "" if descriptor is None else _read_holder(descriptor)
            if descriptor is not None:
                os.close(descriptor)
            raise self._refusal(error, holder) from error
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _refusal(self, error: OSError, holder: str) -> DatabaseRefused:
        folder = self.path.parent
        if isinstance(error, BlockingIOError):
            return DatabaseRefused(
                Reason.LOCKED,
                f"the data folder {folder} is in use by {holder}:"
                " stop that run first, or give another --data-dir",
            )
        if error.errno == errno.ENOSPC:
            return DatabaseRefused(
                Reason.NO_SPACE, f"the disk of {folder} is full: free some space"
            )
        return DatabaseRefused(
            Reason.NO_ACCESS,
            f"{self.path} cannot be locked: {error.strerror or error};"
            " give a --data-dir on a local disk that this user may write to",
        )


def _read_holder(descriptor: int) -> str:
    pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    if not pid.isdigit():
        return "another run"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({command.decode(errors='replace')[:120]})"
