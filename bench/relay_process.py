"""The loopback relay in a process of its own, for tests and benchmarks."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench.relay_options import Command, RelayCounters, RelayOptions

_ROOT: Final = Path(__file__).parent.parent


class RelayProcess:
    """A running relay: its ``url``, and what can be asked of it. Not for several threads."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.url = self._line().decode()

    def counters(self) -> RelayCounters:
        """What it has done so far."""
        return self._do(Command("counters"))

    def publish(self, frames: Sequence[bytes]) -> RelayCounters:
        """Appends frames to its stream."""
        return self._do(Command("publish", tuple(frames)))

    def refuse(self, seconds: float = 0.0) -> RelayCounters:
        """Has it refuse new connections, for a time or until :meth:`listen`."""
        return self._do(Command("refuse", seconds=seconds))

    def listen(self) -> RelayCounters:
        """Has it accept connections again."""
        return self._do(Command("listen"))

    def disconnect(self) -> RelayCounters:
        """Has it reset every open connection."""
        return self._do(Command("disconnect"))

    def _do(self, command: Command) -> RelayCounters:
        assert self._child.stdin is not None
        self._child.stdin.write(msgspec.json.encode(command) + b"\n")
        self._child.stdin.flush()
        return msgspec.json.decode(self._line(), type=RelayCounters)

    def _line(self) -> bytes:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay has ended with exit code {self._child.wait()}")
        return line.rstrip()


@contextmanager
def relay_process(
    capture: Path | None = None, options: RelayOptions | None = None, port: int = 0
) -> Iterator[RelayProcess]:
    """Runs a relay that serves this capture; it is gone when the block is left."""
    command = [sys.executable, "-m", "bench.relay", "--obey", "--port", str(port)]
    command += ["--options", msgspec.json.encode(options or RelayOptions()).decode()]
    command += [str(capture.resolve())] if capture else []
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield RelayProcess(child)
        finally:
            child.kill()
