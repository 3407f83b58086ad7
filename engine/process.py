"""Processes and signals: the only place that starts the one and receives the other.

Three kinds of process meet here. The supervisor reads its signals from a descriptor, as a signal
that arrives during a poll would otherwise only restart the poll's timeout. An actor's process is
spawned, never forked, ignores what the terminal sends to the whole group, and ends when its parent
does. A program (a database server) is started by path, in a session of its own, and ends with the
supervisor's main thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.process
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final, Self

from engine.child import Boot

ORPHAN_SECONDS: Final = 2.0
"""How long the loop of an orphan has to end by itself before its process is killed."""

LARGEST_BOOT: Final = 48 * 1024
"""Bytes of a pickled Boot. It goes through a pipe that holds 64 KiB: with more, the supervisor
would wait for ever for a child that dies before it has read them."""

REAP_SECONDS: Final = 5.0
_COMM_BYTES: Final = 15
_OF_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGHUP)


def describe_exit(code: int | None) -> str:
    """How a process ended, in the words of the log; `code` as in `subprocess.Popen.returncode`."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}"


def name_process(name: str) -> None:
    """Show `name` in ps, top and core dumps, as far as its 15 bytes reach."""
    comm = Path("/proc/self/comm")
    if comm.exists():
        comm.write_bytes(name.encode()[:_COMM_BYTES])


def resident_bytes(pid: int) -> int:
    """The memory of a process, 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_bytes().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Nothing: a handler must exist for the number to be written to the wake-up descriptor."""


def _wakeup_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


class SignalReader:
    """SIGINT, SIGTERM and SIGHUP as bytes on a descriptor, for the time of a `with`.

    Works in the main thread only, and puts the former handlers back at the end.
    """

    WATCHED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> Self:
        self.descriptor, self._writer = _wakeup_pipe()
        self._former_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, _noted) for number in self.WATCHED}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_wakeup)
        os.close(self._writer)
        os.close(self.descriptor)

    def read(self) -> list[str]:
        """The names of the signals that came since the last call."""
        watched = {int(number) for number in self.WATCHED}
        try:
            numbers = os.read(self.descriptor, 1024)
        except BlockingIOError:
            return []
        return [signal.Signals(number).name for number in numbers if number in watched]


@contextlib.contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Children inherit the mask, and lift it once they ignore these signals.

    So a Ctrl-C in the moment of a start neither kills the newborn nor is lost to the supervisor.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


class ChildProcess:
    """The process of one generation of an actor.

    Raises OSError when the machine has no room for one more process, whatever pickle raises
    (TypeError, AttributeError, PicklingError) when the child's spec cannot be handed over, and
    ValueError when it is too large for that.
    """

    def __init__(self, boot: Boot) -> None:
        size = len(ForkingPickler.dumps(boot))
        if size > LARGEST_BOOT:
            raise ValueError(f"its spec takes {size} bytes, more than {LARGEST_BOOT}")
        context = multiprocessing.get_context("spawn")
        # Started now and not within `start`, where it would lift the mask too early.
        resource_tracker.ensure_running()
        self._process = context.Process(
            target=child_main, args=(boot,), name=boot.name, daemon=False
        )
        with _terminal_signals_blocked():
            self._process.start()
        assert self._process.pid is not None
        self.pid: Final = self._process.pid
        self.sentinel: Final = self._process.sentinel

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def reap(self) -> int:
        """Collect the ended process, so that it is no zombie. Returns its exit code.

        A process that is still there though its sentinel says otherwise is killed first.
        """
        self._process.join(REAP_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        assert code is not None
        self._process.close()
        return code


def child_main(boot: Boot) -> None:
    """The main function of an actor's process."""
    name_process(boot.name)
    for number in _OF_THE_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    descriptor, writer = _wakeup_pipe()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _noted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_TERMINAL)
    parent = multiprocessing.parent_process()
    assert parent is not None, "child_main runs in a process started by ChildProcess"
    threading.Thread(
        target=_end_as_orphan, args=(parent.sentinel,), name="lifeline", daemon=True
    ).start()
    if boot.logging is not None:
        boot.logging(boot.name)
    from engine.bootstrap import run_actor

    sys.exit(
        run_actor(
            dataclasses.replace(boot, parent_sentinel=parent.sentinel, signal_descriptor=descriptor)
        )
    )


def _end_as_orphan(sentinel: int) -> None:
    """Kill this process when its parent is gone and its own loop did not notice.

    The loop watches the same sentinel, but may be deep in a statement or a computation. A hard
    kill is always safe, while an orphan that goes on writing is not.
    """
    poller = select.poll()
    poller.register(sentinel, select.POLLIN)
    poller.poll()
    time.sleep(ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


# Sets the signal that the kernel sends at the end of the parent's thread. It must come after the
# change of user, which clears it, and look at the parent after that, who may be gone already.
_LAUNCHER: Final = """
import ctypes, os, sys
parent, death, user, group = map(int, sys.argv[1:5])
libc = ctypes.CDLL(None, use_errno=True)
if group >= 0:
    os.setgroups([])
    os.setgid(group)
if user >= 0:
    os.setuid(user)
if libc.prctl(1, death, 0, 0, 0) != 0:
    sys.exit("cannot ask for a signal at the parent's end: " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit("the parent ended before the program began")
os.execv(sys.argv[5], sys.argv[5:])
"""


class Program:
    """A program of the machine as a direct child: what a service is made of.

    `arguments[0]` is its absolute path. It runs in a session of its own, so that a Ctrl-C in the
    terminal does not stop it before those who need it, and as `user` and `group` where given. Once
    the supervisor is gone, however that happened, the kernel sends it `signal_at_orphaning`.
    To be started in the main thread, as it is that thread's end which the kernel watches.

    Raises OSError when it cannot be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: str | Path | None = None,
        user: int | None = None,
        group: int | None = None,
        output: int | IO[bytes] | None = None,
        signal_at_orphaning: str = "SIGTERM",
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"start {arguments[0]} in the main thread: it ends with its thread")
        launcher = [
            *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
            *(str(os.getpid()), str(int(signal.Signals[signal_at_orphaning]))),
            *(str(-1 if user is None else user), str(-1 if group is None else group)),
        ]
        self._process = subprocess.Popen(
            [*launcher, *arguments],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self.pid: Final = self._process.pid
        self.descriptor: Final = os.pidfd_open(self.pid)
        """Readable once the program has ended; open until `close`."""

    def send(self, signal_name: str) -> None:
        """Send a signal, such as "SIGINT"; nothing happens when the program has ended."""
        self._process.send_signal(signal.Signals[signal_name])

    def wait(self, seconds: float) -> bool:
        """Whether the program has ended, waiting so long for it at most."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def exit_code(self) -> int | None:
        """None while it runs, negative when a signal ended it."""
        return self._process.poll()

    def describe_exit(self) -> str:
        return describe_exit(self.exit_code)

    def close(self) -> None:
        """Kill it if it still runs, collect it, and close the descriptor."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self.descriptor)
