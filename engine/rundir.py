"""The private directory of one run: its sockets, and a lock that nobody else can hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

LOCK_NAME: Final = "lock"
LONGEST_BASE: Final = 48
"""Bytes of the parent's path that leave room for the names of sockets, whose paths are at most
107 bytes long."""

log = structlog.get_logger("supervisor")


class RunDirectory:
    """A new directory that only this user can enter, gone at the end of the `with`.

    Directories that dead runs left beside it are removed first: theirs are those whose lock can be
    taken. `base` is by default the user's runtime directory or that for temporary files, if their
    paths are short enough for sockets, else /tmp.

    Raises OSError when it cannot be made, and ValueError when `base` is given and too long.
    """

    def __init__(self, prefix: str = "skyshard", base: str | Path | None = None) -> None:
        if base is not None and len(os.fsencode(base)) > LONGEST_BASE:
            raise ValueError(
                f"sockets under {base} would have names longer than the system takes:"
                f" use a directory whose path has at most {LONGEST_BASE} bytes"
            )
        self._prefix = f"{prefix}-"
        self._base = Path(base) if base is not None else _default_base()

    def __enter__(self) -> Self:
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_stale()
        # A run that starts now may take our new directory for a stale one before it is locked.
        while (made := self._make()) is None:
            pass
        self.path, self._lock = made
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Removed while locked, so that nobody else removes it too.
        shutil.rmtree(self.path)
        os.close(self._lock)

    def _make(self) -> tuple[Path, int] | None:
        path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._base))
        lock = _take_lock(path, create=True)
        return None if lock is None else (path, lock)

    def _remove_stale(self) -> None:
        for path in sorted(self._base.glob(f"{self._prefix}*")):
            if not _is_ours(path):
                continue
            lock = _take_lock(path, create=False)
            if lock is not None:
                log.info("removing what a dead run left", path=str(path))
                # Its orphans may still be on their way out, and remove their sockets meanwhile.
                shutil.rmtree(path, onerror=_leave_to_next)
                os.close(lock)


def _leave_to_next(_remove: Any, path: str, failure: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(failure[1], FileNotFoundError):
        log.warning("cannot remove what a dead run left", path=path, reason=str(failure[1]))


def _default_base() -> Path:
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if (
            candidate
            and len(os.fsencode(candidate)) <= LONGEST_BASE
            and os.path.isdir(candidate)
            and os.access(candidate, os.W_OK | os.X_OK)
        ):
            return Path(candidate)
    return Path("/tmp")  # noqa: S108 - what is made in it is private and new


def _is_ours(path: Path) -> bool:
    """Whether it is a directory, not a link to one, that only this user may enter."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    private = stat.S_IMODE(found.st_mode) & 0o077 == 0
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and private


def _take_lock(path: Path, *, create: bool) -> int | None:
    """The descriptor of the lock of a run directory, None when another has it or it is gone."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        lock = os.open(path / LOCK_NAME, flags, 0o600)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What was locked may have been removed between the two calls.
        if os.fstat(lock).st_ino == (path / LOCK_NAME).stat().st_ino:
            return lock
    os.close(lock)
    return None
