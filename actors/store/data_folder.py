"""The folder of the embedded server: what is where, whether it is ours, and its one-time making.

{data_dir}/postgres/data          PostgreSQL's data folder, complete from the moment it exists
{data_dir}/postgres/data.making   one that initdb is making, or left behind when it was killed
{data_dir}/postgres/log           the server's log
{data_dir}/postgres/run           its socket for readers of the index
{data_dir}/postgres/lock          held by the run that uses it
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import platformdirs

from actors.store.account import Account
from actors.store.binaries import Binaries
from actors.store.refusal import DatabaseRefused, Reason

__all__ = ["SUPERUSER", "DataFolder", "default_data_dir", "refuse"]

SUPERUSER: Final = "skyshard"


def default_data_dir() -> Path:
    """Where the data goes when the user names no folder; root's must be enterable by others."""
    if os.geteuid() == 0:
        return Path("/var/lib/skyshard")
    return platformdirs.user_data_path("skyshard", appauthor=False)


class DataFolder:
    """The layout above. Its methods raise DatabaseRefused for whatever is wrong with it."""

    def __init__(self, data_dir: Path) -> None:
        # Resolved, as the server's processes are told from others by their working directory.
        self.data_dir = data_dir.expanduser().resolve()
        self.root = self.data_dir / "postgres"
        self.data = self.root / "data"
        self.making = self.root / "data.making"
        self.log = self.root / "log"
        self.lock = self.root / "lock"

    def prepare(self) -> None:
        """Make the folders around the data. Folders that exist keep their permissions."""
        try:
            for folder in [*reversed(self.root.parents), self.root]:
                if not folder.exists():
                    folder.mkdir()
                    # PostgreSQL may be another user: it must get through, whatever our umask.
                    folder.chmod(0o755 if os.geteuid() == 0 else 0o700)
        except OSError as error:
            raise refuse(error, self.root) from error

    def owner(self) -> int | None:
        """The uid that owns the data; None when there is none yet."""
        try:
            return self.data.stat().st_uid
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refuse(error, self.data) from error

    def check(self, binaries: Binaries) -> bool:
        """Whether there is data that `binaries` can open; False when it is yet to be made."""
        try:
            names = set(os.listdir(self.data))
            if not names:
                return False
            if "PG_VERSION" not in names or "global" not in names:
                raise DatabaseRefused(
                    Reason.NOT_OURS,
                    f"{self.data} holds something that is not a PostgreSQL data folder:"
                    " move it away, or give another --data-dir",
                )
            version = (self.data / "PG_VERSION").read_bytes()[:16].decode(errors="replace").strip()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise refuse(error, self.data) from error
        if version != str(binaries.major):
            raise DatabaseRefused(
                Reason.OTHER_MAJOR,
                f"the data folder {self.data} was made by PostgreSQL {version!r} and cannot be"
                f" opened by {binaries.version}: upgrade it with pg_upgrade, or give another"
                " --data-dir to index anew",
            )
        return True

    def check_access(self, account: Account) -> None:
        """Raises DatabaseRefused unless `account` can get to the data."""
        if account.can_enter(self.root):
            return
        blocked = next(
            folder
            for folder in [*reversed(self.root.parents), self.root]
            if not account.can_enter(folder)
        )
        raise DatabaseRefused(
            Reason.NO_ACCESS,
            f"PostgreSQL runs as {account.name}, who cannot enter {blocked}: give a --data-dir"
            " outside of it, or let that user in",
        )

    def clear(self) -> Iterator[str]:
        """Remove what a killed initdb left, which may still be on its way out."""
        attempts = 0
        while self.making.exists():
            try:
                shutil.rmtree(self.making)
            except OSError as error:
                attempts += 1
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or attempts > 100:
                    raise refuse(error, self.making) from error
                yield "the end of an initdb that was interrupted"

    def begin(self, account: Account) -> None:
        """Make the folder for initdb to fill."""
        try:
            self.making.mkdir(mode=0o700)
            account.give(self.making)
        except OSError as error:
            raise refuse(error, self.making) from error

    def initdb(self, binaries: Binaries, *, durable: bool) -> list[str]:
        """The command that fills it: C locale, UTF8, checksums, trust on the socket only."""
        return [
            binaries.program("initdb"),
            f"--pgdata={self.making}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=reject",
            "--data-checksums",
            "--no-instructions",
            *([] if durable else ["--no-sync"]),
        ]

    def finish(self) -> None:
        """Give the filled folder its name. From now on it is data."""
        try:
            self.making.rename(self.data)
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise refuse(error, self.data) from error


def refuse(error: OSError, path: Path) -> DatabaseRefused:
    """The one line for a failed access to `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DatabaseRefused(
            Reason.NO_SPACE, f"the disk of {path} is full: free some space, and start again"
        )
    if isinstance(error, PermissionError):
        return DatabaseRefused(
            Reason.NO_ACCESS,
            f"no permission to use {error.filename or path}: start as its owner, or give another"
            " --data-dir",
        )
    return DatabaseRefused(
        Reason.NO_ACCESS,
        f"{error.filename or path} cannot be used: {error.strerror or error};"
        " repair it, or give another --data-dir",
    )
