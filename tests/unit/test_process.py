"""Processes, programs and signals of the machine."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.actor import Actor
from engine.child import Boot
from engine.process import (
    LARGEST_BOOT,
    ChildProcess,
    Program,
    SignalReader,
    describe_exit,
    resident_bytes,
)

SECONDS = 120.0
SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(3600)")
NOBODY = 65534

PARENT = """
import sys
from engine.process import Program
user = None if sys.argv[1] == "-" else int(sys.argv[1])
program = Program(["/bin/sleep", "3600"], user=user, group=user)
while "sleep" not in open(f"/proc/{program.pid}/comm").read():
    pass
print(program.pid, flush=True)
sys.stdin.read()
"""


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], SECONDS)[0])


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Program]:
    with (tmp_path / "output").open("wb") as output:
        program = Program(SLEEP, output=output)
    yield program
    program.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "still running"),
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-11, "killed by SIGSEGV"),
        (-63, "killed by signal 63"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(code: int | None, words: str) -> None:
    assert describe_exit(code) == words


def test_signals_are_read_from_a_descriptor_in_their_order() -> None:
    with SignalReader() as reader:
        assert reader.read() == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert readable(reader.descriptor)
        assert reader.read() == ["SIGTERM", "SIGINT"]
        assert reader.read() == []


def test_the_former_handlers_are_back_at_the_end() -> None:
    before = [signal.getsignal(number) for number in SignalReader.WATCHED]
    with SignalReader():
        assert [signal.getsignal(number) for number in SignalReader.WATCHED] != before
    assert [signal.getsignal(number) for number in SignalReader.WATCHED] == before


def test_other_signals_are_not_reported() -> None:
    former = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    try:
        with SignalReader() as reader:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert readable(reader.descriptor)
            assert reader.read() == []
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_the_end_of_a_program_is_seen_on_its_descriptor(sleeper: Program) -> None:
    assert sleeper.exit_code is None
    assert not sleeper.wait(0.0)
    sleeper.send("SIGKILL")
    assert readable(sleeper.descriptor)
    assert sleeper.wait(SECONDS)
    assert sleeper.describe_exit() == "killed by SIGKILL"


def test_a_program_is_out_of_reach_of_the_terminal(sleeper: Program) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert os.getpgid(sleeper.pid) != os.getpgid(0)


def test_a_closed_program_is_gone(sleeper: Program) -> None:
    other = Program(SLEEP, output=subprocess.DEVNULL)
    other.close()
    assert not psutil.pid_exists(other.pid)
    assert sleeper.exit_code is None


def test_a_program_has_the_process_id_that_was_given(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        program = Program(("/bin/sh", "-c", "echo $$; exit 7"), output=output)
    assert program.wait(SECONDS)
    assert program.describe_exit() == "exit code 7"
    assert int((tmp_path / "output").read_text()) == program.pid
    program.close()


def test_a_program_that_does_not_exist_ends_with_an_exit_code(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        program = Program((str(tmp_path / "nothing"),), output=output)
    assert program.wait(SECONDS)
    assert program.exit_code == 1
    assert "No such file" in (tmp_path / "output").read_text()
    program.close()


def test_a_program_is_refused_outside_of_the_main_thread() -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            Program(SLEEP)
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(SECONDS)
    assert "in the main thread" in str(caught[0])


@pytest.mark.parametrize(
    "user",
    [
        "-",
        pytest.param(
            str(NOBODY),
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user"),
        ),
    ],
)
def test_a_program_ends_with_its_killed_parent(user: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, user],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    program = psutil.Process(int(parent.stdout.readline()))
    if user != "-":
        assert program.uids().real == NOBODY
    parent.kill()
    parent.communicate()
    # An init that does not collect its orphans leaves a zombie, which is ended all the same.
    gone = select.poll()
    descriptor = os.pidfd_open(program.pid) if program.is_running() else None
    if descriptor is not None:
        gone.register(descriptor, select.POLLIN)
        assert gone.poll(SECONDS * 1000)
        os.close(descriptor)


def test_a_spec_that_is_too_large_for_the_pipe_is_refused() -> None:
    boot = Boot("gate", 1, 0, "/nowhere", "ipc://nowhere", Actor, b"x" * LARGEST_BOOT, (), ())
    with pytest.raises(ValueError, match="its spec takes"):
        ChildProcess(boot)


def test_memory_is_that_of_the_process_and_zero_when_it_is_gone() -> None:
    assert resident_bytes(os.getpid()) > 1_000_000
    assert resident_bytes(2**22 + 1) == 0
