"""The folder of the server's socket: private, and with a path short enough for the system."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from actors.store.account import Account
from actors.store.data_folder import refuse
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.server_settings import PORT

__all__ = ["LONGEST_PATH", "SocketFolder"]

LONGEST_PATH: Final = 107  # bytes, without the closing zero of sun_path (unix(7))


class SocketFolder:
    """The run folder itself; when we are root, one beside it that the server's user can enter."""

    def __init__(self, run_dir: Path) -> None:
        run_dir = run_dir.absolute()
        self._beside = os.geteuid() == 0
        self._made = False
        self.path = run_dir.with_name(f"{run_dir.name}.pg") if self._beside else run_dir

    def check(self) -> None:
        """Raises DatabaseRefused when the path would be too long."""
        longest = len(os.fsencode(self.path)) + len(f"/.s.PGSQL.{PORT}")
        if longest > LONGEST_PATH:
            raise DatabaseRefused(
                Reason.SOCKET_PATH,
                f"the path of PostgreSQL's socket in {self.path} has {longest} bytes, and the"
                f" system allows {LONGEST_PATH}: use a shorter run folder",
            )

    def prepare(self, account: Account) -> None:
        """Make it, and remove a dead server's socket. Raises DatabaseRefused."""
        try:
            if self._beside:
                self._make(account)
            else:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Under the lock on the data folder no server of ours lives here any more; its lock
            # file would stop the next one if some other program had got its pid.
            for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise refuse(error, self.path) from error

    def _make(self, account: Account) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        if not account.can_enter(self.path):
            raise DatabaseRefused(
                Reason.NO_ACCESS,
                f"PostgreSQL runs as {account.name}, who cannot enter {self.path}:"
                " use a run folder in a place that all may enter, such as /tmp",
            )

    def remove(self) -> None:
        """Remove the folder that we made beside the run folder; the run folder is its owner's."""
        if self._made:
            self._made = False
            shutil.rmtree(self.path, ignore_errors=True)  # empty but for a dead server's socket
