"""What the server and initdb said: kept in files beside the data, read when one of them fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Final

from actors.store.account import Account

__all__ = ["ServerLog"]

_FULL: Final = "No space left on device"
_RECOVERY: Final = "automatic recovery in progress"
_TAIL: Final = 65536
# The first of these that any line matches, and of such lines the last, tells most.
_TELLING: Final = tuple(
    re.compile(pattern)
    for pattern in (re.escape(_FULL), r"\bPANIC: ", r"\bFATAL: ", r"error: ", r"\bERROR: ", r"\S")
)
# Said to our own attempts to connect, and at every start.
_NOISE: Final = re.compile(
    r"the database system is|not yet accepting connections|terminating connection"
    r"|Future log output|redirecting log"
    r"|Consistent recovery state|HINT: |DETAIL: |CONTEXT: |STATEMENT: "
)
_PREFIX: Final = re.compile(r"^\S+ \S+ \S+ \[\d+\] .*?(?=(?:PANIC|FATAL|ERROR|LOG|WARNING): )")


class ServerLog:
    """The log folder: `start.log` (before the server's own collector works) and a week of days."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._start = folder / "start.log"
        self._seen: dict[Path, int] = {}

    def open_start(self, account: Account) -> IO[bytes]:
        """A new `start.log` for a program's output; what older runs said does not count any more.

        Raises OSError.
        """
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            account.give(self.folder)
        self._seen = {path: path.stat().st_size for path in self.folder.glob("postgres-*.log")}
        return self._start.open("wb")

    def reason(self) -> str:
        """The line that tells best why the program failed; "" when it said nothing."""
        lines = [line.strip() for line in self._new_text().splitlines()]
        lines = [line for line in lines if line and not _NOISE.search(line)]
        for pattern in _TELLING:
            for line in reversed(lines):
                if pattern.search(line):
                    return _PREFIX.sub("", line)
        return ""

    def disk_was_full(self) -> bool:
        return _FULL in self._new_text()

    def tells_of_recovery(self) -> bool:
        """Whether the server found that it had not been shut down properly."""
        return _RECOVERY in self._new_text()

    def _new_text(self) -> str:
        paths = [self._start, *self.folder.glob("postgres-*.log")]
        return "\n".join(self._read(path) for path in paths if path.is_file())

    def _read(self, path: Path) -> str:
        size = path.stat().st_size
        seen = self._seen.get(path, 0)
        with path.open("rb") as file:
            file.seek(max(0 if size < seen else seen, size - _TAIL))
            return file.read(_TAIL).decode(errors="replace")
