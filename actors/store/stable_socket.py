"""A second socket of the embedded server, for whoever reads the index: its path stays the same."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

from actors.store.account import Account
from actors.store.socket_folder import LONGEST_PATH, clear, longest_path, socket_file

__all__ = ["StableSocket"]

_OTHERS: Final = stat.S_IRWXO
_log = logging.getLogger(__name__)


class StableSocket:
    """`run` beside the data: who may enter it may do anything with the database.

    We make it for the server's user, and for root where we are root. Who else may enter is for its
    owner to say: the group and mode of a folder that is there already are left alone.

    The program itself uses the socket in its run folder, which works wherever the data lies: on a
    long path, or on a file system that has no sockets. There this one is missing, and the log says
    so; nothing else depends on it.

    Attributes:
        path: of the folder.
        prepared: whether the server may make its socket there.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "run"
        self.prepared = False

    @property
    def there(self) -> bool:
        """Whether a server has made its socket; it goes on without one where it cannot."""
        return self.prepared and socket_file(self.path).is_socket()

    def prepare(self, account: Account) -> None:
        """Make the folder, and remove a dead server's socket. The caller holds the data's lock."""
        self.prepared = False
        try:
            refusal = self._make(account)
            if not refusal:
                clear(self.path)
        except OSError as error:
            refusal = error.strerror or str(error)
        if refusal:
            _log.warning("no lasting socket for readers in %s: %s", self.path, refusal)
            return
        self.prepared = True

    def remove(self) -> None:
        """Remove what a killed server left in it. The folder stays, as do its group and mode."""
        if self.prepared:
            self.prepared = False
            try:
                clear(self.path)
            except OSError as error:
                _log.warning("the socket in %s cannot be removed: %s", self.path, error)

    def _make(self, account: Account) -> str:
        """Why it cannot be used; empty when it can."""
        longest = longest_path(self.path)
        if longest > LONGEST_PATH:
            return f"its path has {longest} bytes, and the system allows {LONGEST_PATH}"
        if "," in str(self.path):
            return "its path has a comma, which clients take for the end of the first of several"
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return self._check(account)
        account.give(self.path)
        if account.switch:
            # Root enters as the group, where it is not above permissions (containers).
            os.chown(self.path, account.uid, 0)
            self.path.chmod(0o750)
        return ""

    def _check(self, account: Account) -> str:
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return "it is no folder: move it away"
        if found.st_uid != account.uid:
            return f"it does not belong to {account.name}: chown it, or remove it"
        if found.st_mode & _OTHERS:
            _log.warning(
                "whoever can enter %s may do anything with the database, and its mode lets"
                " everybody in: chmod o= it, unless that is meant",
                self.path,
            )
        return ""
