"""The settings of the embedded server, as a table, passed on its command line at every start.

There they rank above the files in the data folder, and a new release changes them without touching
anything that is on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

__all__ = ["PORT", "SERVER_SETTINGS", "ServerOptions", "command_line"]

PORT: Final = 5432  # only a part of the socket's name, as there is no TCP


class ServerOptions(Protocol):
    """What the user may set; the section [embedded] of the configuration has these fields.

    Sizes are written as PostgreSQL does ("256MB"), times are in seconds.
    """

    @property
    def shared_buffers(self) -> str: ...
    @property
    def max_wal_size(self) -> str: ...
    @property
    def work_mem(self) -> str: ...
    @property
    def maintenance_work_mem(self) -> str: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def start_seconds(self) -> float: ...
    @property
    def stop_seconds(self) -> float: ...


SERVER_SETTINGS: Final[tuple[tuple[str, str, str], ...]] = (
    # name, value, why
    ("listen_addresses", "", "no TCP: who may enter the folder of the socket may connect"),
    ("port", str(PORT), "names the socket"),
    ("unix_socket_permissions", "0777", "the folder of the socket is the guard, also for root"),
    ("fsync", "on", "the checkpoint must not survive what it stands for"),
    (
        "synchronous_commit",
        "on",
        "what is acked is never sent again",
    ),
    ("full_page_writes", "on", "a torn page after a loss of power is beyond repair without"),
    ("wal_compression", "on", "full pages are most of the log; this form is in every build"),
    ("checkpoint_timeout", "10min", "fewer full pages in the log; bounds the time of a recovery"),
    ("checkpoint_completion_target", "0.9", "spreads the writes of a checkpoint"),
    ("wal_buffers", "16MB", "batches of several writers between two flushes"),
    ("max_wal_senders", "2", "room for a pg_basebackup while it runs"),
    ("jit", "off", "compiling costs more than the short statements of the writers gain"),
    ("random_page_cost", "1.1", "flash disks: an index is better than its default price"),
    ("effective_io_concurrency", "64", "as above, for prefetching"),
    ("track_io_timing", "on", "tells a slow disk from a slow query"),
    ("autovacuum_naptime", "15s", "the aggregates get new versions all the time"),
    ("autovacuum_vacuum_scale_factor", "0.02", "clean often and little: a fifth of it is huge"),
    ("autovacuum_vacuum_insert_scale_factor", "0.05", "keeps index-only reads fast"),
    ("autovacuum_analyze_scale_factor", "0.02", "fast growth makes statistics old quickly"),
    ("autovacuum_vacuum_cost_limit", "2000", "the default lets it fall behind the writers"),
    ("client_connection_check_interval", "2s", "ends the statement of a killed writer soon"),
    ("idle_in_transaction_session_timeout", "10min", "a hung client must not hold vacuum back"),
    ("log_destination", "stderr", "into the collector's files"),
    ("logging_collector", "on", "rotates without our help"),
    ("log_filename", "postgres-%a.log", "a week of days, each overwritten in its turn"),
    ("log_rotation_age", "1d", "as above"),
    ("log_rotation_size", "0", "a size limit would add files without an end"),
    ("log_truncate_on_rotation", "on", "as above"),
    ("log_file_mode", "0600", "statements in it may hold private data"),
    ("log_line_prefix", "%m [%p] %a ", "which actor's statement it was"),
    ("log_lock_waits", "on", "writers that wait for each other are worth knowing"),
    ("log_startup_progress_interval", "10s", "a recovery says how far it is"),
    ("log_timezone", "UTC", "as in all logs here"),
    ("timezone", "UTC", "the tables hold UTC without a zone"),
    ("lc_messages", "C", "the messages are read by us"),
    ("cluster_name", "skyshard", "shows whose server it is in the process list"),
)

# The settings above that a server of an older major version does not know.
_SINCE: Final[Mapping[str, int]] = {"log_startup_progress_interval": 15}


def command_line(
    options: ServerOptions,
    *,
    major: int,
    socket_folders: Sequence[Path],
    log_folder: Path,
    overrides: Mapping[str, str],
) -> list[str]:
    """`-c name=value` for each setting; `overrides` win (tests switch fsync off with them)."""
    values = {name: value for name, value, _why in SERVER_SETTINGS if _SINCE.get(name, 0) <= major}
    values |= {
        "shared_buffers": options.shared_buffers,
        "max_wal_size": options.max_wal_size,
        "work_mem": options.work_mem,
        "maintenance_work_mem": options.maintenance_work_mem,
        "max_connections": str(options.max_connections),
        "unix_socket_directories": ", ".join(map(_quoted, socket_folders)),
        "log_directory": str(log_folder),
        **overrides,
    }
    return [part for name, value in values.items() for part in ("-c", f"{name}={value}")]


def _quoted(folder: Path) -> str:
    """As an item of a list in which commas, quotes and spaces have a meaning."""
    return '"' + str(folder).replace('"', '""') + '"'
