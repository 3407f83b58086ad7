"""The embedded PostgreSQL: a server of our own on a private socket, as a service of the supervisor.

Its life: lock the folder, find the programs and the user to run them as, stop what a killed run
left, make the data folder when there is none, start `postgres` as a direct child, wait for a real
connection (a recovery may take minutes, and says so), make the database. A guard process ends it
should we be killed; if that is killed too, the next start takes the server over.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil
import psycopg
from psycopg import sql

from actors.store.account import Account, choose_account
from actors.store.binaries import Binaries, accessible, find_binaries
from actors.store.data_folder import SUPERUSER, DataFolder, refuse
from actors.store.diskspace import FULL_BYTES, free_bytes
from actors.store.guard import STOP_SIGNALS, Guard, wait_until_gone
from actors.store.leftover import group_members, server_processes, take_over
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.server_lock import ServerLock
from actors.store.server_log import ServerLog
from actors.store.server_settings import PORT, ServerOptions, command_line
from actors.store.socket_folder import SocketFolder
from actors.store.stable_socket import StableSocket

__all__ = ["DATABASE", "EmbeddedPostgres"]

DATABASE: Final = "skyshard"
_CALM_SECONDS = 1.0  # for sessions to end that were closed just now; a clean stop cuts them off
_IMMEDIATE_SECONDS = 4.0  # for SIGQUIT, after the time for a clean stop has passed
_KILL_SECONDS = 10.0
_PAUSE: Final = 0.01
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """The server of one data folder. Satisfies engine's Service; may be started anew.

    Args:
        data_dir: the data folder of the program; the server's part is `postgres` in it.
        run_dir: a short and private folder. Our socket is in it, or, when we are root, in a folder
            beside it that the server's user may enter. That for readers is beside the data.
        options: the section [embedded] of the settings.
        overrides: settings of the server that win over all others (for tests).
        find: where the programs come from.
        copies: where root keeps copies of programs that the server's user cannot reach; by default
            in the data folder, which is made for that user.
    """

    def __init__(
        self,
        data_dir: Path,
        run_dir: Path,
        options: ServerOptions,
        *,
        overrides: Mapping[str, str] = _NOTHING,
        find: Callable[[], Binaries] = find_binaries,
        copies: Path | None = None,
    ) -> None:
        self.folder = DataFolder(data_dir)
        self.socket = SocketFolder(run_dir)
        self.stable_socket = StableSocket(self.folder.root)
        self._options = options
        self._overrides = dict(overrides)
        self._find = find
        self._copies = copies or self.folder.data_dir
        self._lock = ServerLock(self.folder.lock)
        self._server_log = ServerLog(self.folder.log)
        self._steps: Iterator[str] | None = None
        self._ready = False
        self._exit: select.epoll | None = None
        self._process: subprocess.Popen[bytes] | None = None  # initdb, then postgres
        self._pidfd: int | None = None
        self._guard: Guard | None = None
        self._releasing = threading.Lock()  # stop runs in a thread, kill may come meanwhile

    def conninfo(self, database: str = DATABASE) -> str:
        """How to connect, also before it is ready."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.socket.path), port=PORT, user=SUPERUSER, dbname=database
        )

    def readers_conninfo(self) -> str:
        """How others on this machine connect to a server that is ready.

        It stays the same from run to run, but where the data lies in a place without sockets.
        """
        folder = self.stable_socket.path if self.stable_socket.there else self.socket.path
        return psycopg.conninfo.make_conninfo(host=str(folder), user=SUPERUSER, dbname=DATABASE)

    @property
    def pid(self) -> int | None:
        """The postmaster's (while the data folder is being made, initdb's)."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def ready(self) -> bool:
        """Whether it answers, as far as the last `poll_ready` knew and its process still lives."""
        return self._ready and self.pid is not None

    @property
    def guard_pid(self) -> int | None:
        return None if self._guard is None else self._guard.pid

    # --- start

    def start(self) -> int:
        """Begin to start. The descriptor becomes readable when a server that was ready ends."""
        self._forget_process()
        self._close_exit()
        self._exit = select.epoll()
        self._ready = False
        self._steps = self._start()
        return self._exit.fileno()

    def poll_ready(self) -> bool | str:
        """Do the next step of the start. True once it answers, else what it waits for.

        Raises DatabaseRefused when it will not work.
        """
        if self._ready:
            return True
        if self._steps is None:
            return False
        try:
            return next(self._steps)
        except StopIteration:
            self._steps = None
            self._ready = True
            return True
        except BaseException:
            self._steps = None
            # Nothing may be left running of a start that was given up. The descriptor stays, as it
            # is still being polled.
            self._signal(signal.SIGKILL, _KILL_SECONDS)
            self._release()
            raise

    def _start(self) -> Iterator[str]:
        deadline = time.monotonic() + self._options.start_seconds
        for waiting in self._start_steps():
            yield waiting
            if time.monotonic() > deadline:
                raise DatabaseRefused(
                    Reason.TOO_SLOW,
                    f"PostgreSQL was not ready within {self._options.start_seconds:g} s"
                    f" (waiting for: {waiting}); raise start_seconds in [embedded], or see the log"
                    f" in {self.folder.log}",
                )

    def _start_steps(self) -> Iterator[str]:
        folder = self.folder
        self.socket.check()
        folder.prepare()
        self._lock.acquire()
        account = choose_account(folder.owner())
        folder.check_access(account)
        binaries = accessible(self._find(), account, self._copies)
        exists = folder.check(binaries)
        yield from take_over(folder.data)
        yield from folder.clear()
        if self._guard is None or not self._guard.alive:
            self._guard = Guard()
        if not exists:
            yield from self._make_data(binaries, account)
        self.socket.prepare(account)
        self.stable_socket.prepare(account)
        self._launch(account, self._postgres(binaries))
        yield "the start of PostgreSQL"
        yield from self._wait_until_ready()
        self._watch_exit()
        _log.info("PostgreSQL %s is ready (process %s)", binaries.version, self.pid)
        _log.info("connect with: psql %s", shlex.quote(self.readers_conninfo()))

    def _make_data(self, binaries: Binaries, account: Account) -> Iterator[str]:
        _log.info("making a data folder of PostgreSQL %s", binaries.version)
        self.folder.begin(account)
        durable = self._overrides.get("fsync") != "off"
        process = self._launch(account, self.folder.initdb(binaries, durable=durable))
        while process.poll() is None:
            yield "the making of the data folder (initdb)"
        if process.returncode != 0:
            raise self._refusal("initdb", process.returncode)
        self._forget_process()
        self.folder.finish()

    def _postgres(self, binaries: Binaries) -> list[str]:
        return [
            binaries.program("postgres"),
            "-D",
            str(self.folder.data),
            *command_line(
                self._options,
                major=binaries.major,
                socket_folders=self._socket_folders(),
                log_folder=self.folder.log,
                overrides=self._overrides,
            ),
        ]

    def _socket_folders(self) -> list[Path]:
        stable = self.stable_socket
        return [self.socket.path, stable.path] if stable.prepared else [self.socket.path]

    def _launch(self, account: Account, command: list[str]) -> subprocess.Popen[bytes]:
        try:
            with self._server_log.open_start(account) as output:
                process = account.run(command, output=output)
        except OSError as error:
            raise refuse(error, Path(command[0])) from error
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        assert self._guard is not None
        try:
            self._guard.watch(self._pidfd)
        except OSError:
            _log.warning("the guard of PostgreSQL is gone; a kill of this run may leave the server")
        return process

    def _wait_until_ready(self) -> Iterator[str]:
        assert self._process is not None
        began = time.monotonic()
        while True:
            if (code := self._process.poll()) is not None:
                if code >= 0:
                    raise self._refusal("PostgreSQL", code)
                # Killed from outside: that is no verdict on the data, so the supervisor may retry.
                self._watch_exit()
                while True:
                    yield "the restart of PostgreSQL, which was killed"
            try:
                with psycopg.connect(
                    self.conninfo("postgres"), connect_timeout=3, autocommit=True
                ) as connection:
                    self._make_database(connection)
                    return
            except psycopg.errors.DiskFull as error:
                raise refuse(OSError(errno.ENOSPC, ""), self.folder.data) from error
            except psycopg.OperationalError:
                # Not there yet, or in recovery: both look like this from outside.
                yield self._what_it_does(time.monotonic() - began)

    def _make_database(self, connection: psycopg.Connection) -> None:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if found.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _what_it_does(self, seconds: float) -> str:
        starting = f"the start of PostgreSQL ({seconds:.0f} s)"
        # A clean start looks the same in the process list for a moment.
        if not self._server_log.tells_of_recovery():
            return starting
        for process in server_processes(self.folder.data):
            try:
                title = " ".join(process.cmdline()).strip()
            except psutil.Error:
                continue  # ended meanwhile
            # "postgres: skyshard: startup recovering 000000010000000000000003"
            if ": startup " in title:
                doing = title.rsplit(": startup ", 1)[1].strip()
                return f"recovery after a crash: {doing} ({seconds:.0f} s)"
        return starting

    def _watch_exit(self) -> None:
        assert self._exit is not None
        assert self._pidfd is not None
        self._exit.register(self._pidfd, select.EPOLLIN)

    # --- end

    def stop(self, seconds: float) -> None:
        """Stop it cleanly within `seconds`, then immediately, then by force. Returns once gone."""
        self._steps = None
        limits = (max(0.0, seconds - _CALM_SECONDS), _IMMEDIATE_SECONDS, _KILL_SECONDS)
        self._signal(signal.SIGTERM, min(_CALM_SECONDS, seconds))
        for number, limit in zip(STOP_SIGNALS, limits, strict=True):
            if self._signal(number, limit):
                break
            _log.warning("PostgreSQL did not stop within %g s of %s", limit, number.name)
        self._release()
        self._close_exit()

    def kill(self) -> None:
        """SIGKILL to it and its children; the next start recovers. Nothing of it is left after."""
        self._steps = None
        self._signal(signal.SIGKILL, _KILL_SECONDS)
        self._release()
        self._close_exit()

    def describe_exit(self) -> str:
        """How it ended, with its own last word where it had one."""
        process = self._process
        if process is None:
            return "was never started"
        if process.poll() is None:
            return "not ended"
        return self._describe(process.returncode)

    def _describe(self, code: int) -> str:
        if code == 0:
            return "stopped cleanly"
        reason = self._server_log.reason()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{how}: {reason}" if reason and code > 0 else how

    def _refusal(self, program: str, code: int) -> DatabaseRefused:
        # A log on a full disk cannot say so.
        if self._server_log.disk_was_full() or free_bytes(self.folder.root) < FULL_BYTES:
            return refuse(OSError(errno.ENOSPC, ""), self.folder.data)
        return DatabaseRefused(
            Reason.SERVER_FAILED,
            f"{program} gave up ({self._describe(code)}); its log is in {self.folder.log}",
        )

    def _signal(self, number: int, seconds: float) -> bool:
        """Whether the process is gone within `seconds` of the signal."""
        process, pidfd = self._process, self._pidfd
        if process is None or pidfd is None or process.poll() is not None:
            return True
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return True
        return wait_until_gone(pidfd, seconds)

    def _release(self) -> None:
        """Give back everything that a run holds. The postmaster is dead, or beyond a SIGKILL."""
        with self._releasing:
            if self._lock.held:
                self._kill_orphans()
            if self._process is not None and self._signal(signal.SIGKILL, _KILL_SECONDS):
                self._process.wait()
            if self._guard is not None:
                self._guard.close()
                self._guard = None
            self._ready = False
            self.socket.remove()
            self.stable_socket.remove()
            self._lock.release()

    def _close_exit(self) -> None:
        with self._releasing:
            if self._exit is not None:
                self._exit.close()
                self._exit = None

    def _kill_orphans(self) -> None:
        """Children outlive a killed postmaster for a moment, or for as long as a query takes.

        Those of initdb stay in its process group; the postmaster's leave it, but work in the data.
        """
        psutil.wait_procs(self._orphans(), _CALM_SECONDS)  # the logger writes its last line
        deadline = time.monotonic() + _KILL_SECONDS
        while orphans := self._orphans():
            for process in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in orphans)
                _log.error("PostgreSQL processes hang in the system: %s", pids)
                return
            time.sleep(_PAUSE)

    def _orphans(self) -> list[psutil.Process]:
        found = server_processes(self.folder.data)
        if self._process is not None and self._process.returncode is None:
            # Not reaped yet, so its number is no other group's. It is itself ended by its pidfd.
            found += [p for p in group_members(self._process.pid) if p.pid != self._process.pid]
        return found

    def _forget_process(self) -> None:
        """Before another program takes the place of one that has ended.

        Only here is its pidfd closed, as `stop` may wait for it in another thread.
        """
        if self._process is not None:
            self._process.wait(_KILL_SECONDS)
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._process = self._pidfd = None
