"""The system user that PostgreSQL runs as: ourselves, or an unprivileged one when we are root.

`initdb` and `postgres` refuse to run as root, and `initdb` wants its user in the password database.
This file starts programs (`subprocess`), as do its neighbours that run PostgreSQL; everywhere else
in the project processes are started by engine/process.py only.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from actors.store.refusal import DatabaseRefused, Reason

__all__ = ["Account", "choose_account"]

# Tried in this order when root makes a new data folder.
CANDIDATES: Final = ("skyshard", "postgres", "nobody")
# What the server's programs see of our environment: PG* and LC_* variables would change their
# behaviour, the library path may be what makes them run at all.
_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "TMPDIR")
_VERSION_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Account:
    """A system user. `switch` says that programs must change to it, as we are root."""

    uid: int
    gid: int
    name: str
    switch: bool

    def run(
        self, arguments: list[str], *, output: int | IO[bytes] = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a program as this user.

        It gets a session of its own, so that Ctrl-C in the terminal reaches us and not it, and
        starts in the root folder, since it may not be able to enter ours.
        Raises OSError when the program cannot be started.
        """
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            umask=0o077,
            start_new_session=True,
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=[] if self.switch else None,
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether this user gets into `folder`: asked of the system, which knows all its rules."""
        if not self.switch:
            return os.access(folder, os.X_OK)
        return self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).wait() == 0

    def can_run(self, program: Path) -> bool:
        """Whether this user may execute `program`, which must know the option --version."""
        try:
            process = self.run([str(program), "--version"])
        except OSError:
            return False
        try:
            return process.wait(_VERSION_SECONDS) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False

    def give(self, path: Path) -> None:
        """Make this user the owner of a file or folder that we have just made."""
        if self.switch:
            os.chown(path, self.uid, self.gid)


def choose_account(owner: int | None) -> Account:
    """The user to run PostgreSQL as, given who owns the data folder (None: it is yet to be made).

    The owner of an existing folder stays its user, whichever users are added to the system later.
    Raises DatabaseRefused when there is none, or when we are neither root nor the owner.
    """
    own = os.geteuid()
    if own != 0:
        if owner is not None and owner != own:
            raise DatabaseRefused(
                Reason.NOT_OURS,
                f"the data folder belongs to {_name(owner)} and this run to {_name(own)}:"
                " start it as that user, or give another --data-dir",
            )
        return Account(own, os.getegid(), _name(own), switch=False)
    if owner == 0:
        raise DatabaseRefused(
            Reason.NOT_OURS,
            "the data folder belongs to root, as whom PostgreSQL refuses to run:"
            " give it to an unprivileged user (chown -R), or give another --data-dir",
        )
    if owner is not None:
        return _account(owner)
    for name in CANDIDATES:
        try:
            return _account(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise DatabaseRefused(
        Reason.NO_ACCOUNT,
        "PostgreSQL refuses to run as root, and this system has none of the users"
        f" {', '.join(CANDIDATES)}: add one (useradd --system skyshard), or start as a normal user",
    )


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        # The owner of an existing folder may have no entry here (a volume of another machine);
        # only initdb wants one.
        return Account(uid, uid, str(uid), switch=True)
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switch=True)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}
