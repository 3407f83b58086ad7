"""Where the messages go that kill every process that reads them."""

import os
from pathlib import Path
from typing import Protocol

import msgspec


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was given up, with what is needed to understand it later.

    `reason` is one line about the deaths it caused; `body` the encoded message, as it was sent;
    `time` unix seconds.
    """

    time: float
    sender: str
    receiver: str
    receiver_generation: int
    kind: str
    reason: str
    body: bytes


class DeadLetterSink(Protocol):
    """Given by the topology as a factory, and made in the process of the sender."""

    def put(self, letter: DeadLetter) -> None:
        """Return only when the letter is durable: the message counts as acked from then on.

        Raises whatever keeps it from being stored; the sender then ends, and tries again after it.
        """

    def close(self) -> None: ...


class FileDeadLetters:
    """Dead letters as JSON lines in a file, each synced to the disk before `put` returns."""

    def __init__(self, path: str | Path) -> None:
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    def put(self, letter: DeadLetter) -> None:
        line = memoryview(msgspec.json.encode(letter) + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    @staticmethod
    def read(path: str | Path) -> list[DeadLetter]:
        """Every letter of the file. Raises msgspec.DecodeError where a line is not a letter."""
        return [
            msgspec.json.decode(line, type=DeadLetter)
            for line in Path(path).read_bytes().splitlines()
        ]
