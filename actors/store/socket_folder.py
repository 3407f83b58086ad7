"""The folder of the server's own socket: private, with a path short enough for the system."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Final

from actors.store.account import Account
from actors.store.data_folder import refuse
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.server_settings import PORT

__all__ = ["LONGEST_PATH", "SocketFolder", "clear", "longest_path", "socket_file"]

LONGEST_PATH: Final = 107  # bytes, without the closing zero of sun_path (unix(7))
_SUFFIX: Final = ".pg"
# Every user may enter it, unlike root's runtime folder.
_PUBLIC: Final = Path("/tmp")  # noqa: S108 - what is made in it is private, and checked to be ours


class SocketFolder:
    """The run folder itself. When we are root, one that the server's user can enter: beside it,
    or in /tmp where it lies in a folder for root only.

    Attributes:
        path: of the folder, known before it is made.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir.absolute()
        self._apart = os.geteuid() == 0
        self._made = False
        self.path = self._run_dir
        if self._apart:
            parent = self._run_dir.parent if _is_public(self._run_dir.parent) else _PUBLIC
            self.path = parent / f"{self._run_dir.name}{_SUFFIX}"

    def check(self) -> None:
        """Raises DatabaseRefused when the path would be too long."""
        longest = longest_path(self.path)
        if longest > LONGEST_PATH:
            raise DatabaseRefused(
                Reason.SOCKET_PATH,
                f"the path of PostgreSQL's socket in {self.path} has {longest} bytes, and the"
                f" system allows {LONGEST_PATH}: use a shorter run folder",
            )

    def prepare(self, account: Account) -> None:
        """Make it, and remove a dead server's socket. Raises DatabaseRefused."""
        try:
            if self._apart:
                self._make(account)
                self._remove_stale(account)
            else:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            clear(self.path)
        except OSError as error:
            raise refuse(error, self.path) from error

    def remove(self) -> None:
        """Remove the folder that we made apart; the run folder is for its owner to remove."""
        if self._made:
            self._made = False
            shutil.rmtree(self.path, ignore_errors=True)  # holds a dead server's socket at most

    def _make(self, account: Account) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        found = self.path.lstat()
        # In a public folder another user may have been quicker than we.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, account.uid):
            raise DatabaseRefused(
                Reason.NO_ACCESS,
                f"{self.path} belongs to somebody else: use another run folder",
            )
        self._made = True
        # Root enters as the group, where it is not above permissions (containers).
        os.chown(self.path, account.uid, 0)
        self.path.chmod(0o750)

    def _remove_stale(self, account: Account) -> None:
        """Remove those of killed runs: their run folders are gone, and no server is there."""
        for path in self.path.parent.glob(f"*{_SUFFIX}"):
            name = path.name[: -len(_SUFFIX)]
            # A run folder may be beside it, in the place of ours, or elsewhere.
            folders = (path.with_name(name), self._run_dir.with_name(name))
            if path == self.path or any(each.exists() for each in folders) or _is_served(path):
                continue
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid:
                continue
            if all(entry.name.startswith(".s.PGSQL.") for entry in path.iterdir()):
                shutil.rmtree(path, ignore_errors=True)  # a rest of it is in nobody's way


def socket_file(folder: Path) -> Path:
    """The socket that a server makes in a folder."""
    return folder / f".s.PGSQL.{PORT}"


def longest_path(folder: Path) -> int:
    """Bytes of the longest path that the system has to take for it."""
    return len(os.fsencode(socket_file(folder)))


def _is_served(folder: Path) -> bool:
    """Whether a server listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(socket_file(folder)))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it is too busy to say so
    return True


def clear(folder: Path) -> None:
    """Remove a dead server's socket. Raises OSError.

    Under the lock on the data folder no server of ours lives there any more; its lock file would
    stop the next one if some other program had got its pid.
    """
    socket_file(folder).unlink(missing_ok=True)
    (folder / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)


def _is_public(folder: Path) -> bool:
    """Whether everybody may get into it."""
    try:
        return all(entry.stat().st_mode & stat.S_IXOTH for entry in (folder, *folder.parents))
    except OSError:
        return False  # it is not there yet, and will be made for us only
