"""A small supervised system in processes of its own, to be disturbed by tests.

Run as a program it takes its topology as JSON and an arena, a directory in which its actors find
orders (`<actor>.<order>`, removed when taken) and leave traces. Log lines go to standard error as
JSON, the outcome to standard output.
"""

import dataclasses
import functools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.actor import Actor, Delivery
from engine.address import Address
from engine.child import ChildSpec, Restart, ServiceFailed, ServiceSpec
from engine.deadletter import FileDeadLetters
from engine.message import Message
from engine.process import Program
from engine.status import Status
from engine.topology import Backoff, Edge, EdgeKind, Group, Strategy, Topology

ORDER_SECONDS = 0.02


class Poke(Message, frozen=True):
    words: tuple[str, ...]

    def split(self) -> Sequence[Message]:
        return [Poke((word,)) for word in self.words]


def trace(arena: Path, line: str) -> None:
    descriptor = os.open(arena / "trace", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


class Soldier(Actor):
    """Does what the orders in its arena say."""

    def on_start(self) -> None:
        self.arena = Path(self.settings["arena"])
        trace(self.arena, f"start {self.context.name} epoch {self.context.epoch}")
        if self.settings.get("fails_at_start"):
            raise RuntimeError("no boots")
        if self.settings.get("slow_start"):
            self.sleep_for_ever()
        self.context.after(ORDER_SECONDS, self.look_for_orders)

    def receive(self, message: Message, delivery: Delivery) -> None:
        assert isinstance(message, Poke)
        for word in message.words:
            trace(self.arena, f"poked {self.context.name} {word}")
            if word.startswith("poison"):
                self.obey("die")

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        trace(self.arena, f"peer {self.context.name} {peer} {generation} {'up' if up else 'down'}")

    def on_status(self, status: bytes) -> None:
        taken = Status.decode(status)
        trace(self.arena, f"status {self.context.name} {taken.phase} {len(taken.children)}")

    def on_drain(self) -> None:
        trace(self.arena, f"drain {self.context.name}")
        if self.settings.get("drains_for_ever"):
            return
        if self.settings.get("deaf"):
            self.sleep_for_ever()
        self.context.stop()

    def on_stop(self) -> None:
        trace(self.arena, f"stop {self.context.name}")

    def look_for_orders(self) -> None:
        for path in sorted(self.arena.glob(f"{self.context.name}.*")):
            path.unlink()
            self.obey(path.suffix.removeprefix("."))
        self.context.after(ORDER_SECONDS, self.look_for_orders)

    def obey(self, order: str) -> None:
        trace(self.arena, f"obey {self.context.name} {order}")
        if order == "raise":
            raise RuntimeError("as ordered")
        if order == "stick":
            self.sleep_for_ever()
        elif order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif order == "stop":
            self.context.stop()
        elif order == "finish":
            self.context.finish({"by": self.context.name})
        elif order == "fail":
            self.context.fail("the tables are of a newer version", 42)
        elif order == "poke":
            for to, words in self.settings["pokes"].items():
                self.context.tell(to, Poke(tuple(words)))
        else:
            raise ValueError(f"unknown order {order!r}")

    def sleep_for_ever(self) -> None:
        while True:
            time.sleep(3600)


class Camp:
    """A service: a program that is ready once it has left a file with its process id."""

    PROGRAM = (
        "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(3600)"
    )

    def __init__(self, arena: Path, name: str) -> None:
        self._arena = arena
        self._name = name
        self._file = arena / f"{name}.pid"
        self._program: Program | None = None

    def start(self) -> int:
        if self._program is not None:
            self._program.close()
        if (self._arena / f"{self._name}.hopeless").exists():
            raise ServiceFailed("the data folder is of another version", 65)
        self._file.unlink(missing_ok=True)
        self._program = Program([sys.executable, "-c", self.PROGRAM, str(self._file)])
        trace(self._arena, f"start {self._name}")
        return self._program.descriptor

    def poll_ready(self) -> bool | str:
        if (self._arena / f"{self._name}.hold").exists():
            return "held back"
        if (self._arena / f"{self._name}.silent").exists():
            return False
        return self._file.exists() and self._file.read_text() == str(self.pid)

    def stop(self, seconds: float) -> None:
        assert self._program is not None
        if (self._arena / f"{self._name}.unstoppable").exists():
            raise OSError("no way to stop it")
        if not (self._arena / f"{self._name}.deaf").exists():
            self._program.send("SIGTERM")
        if not self._program.wait(seconds):
            self._program.send("SIGKILL")
            self._program.wait(seconds)
        trace(self._arena, f"stop {self._name}")

    def kill(self) -> None:
        assert self._program is not None
        self._program.send("SIGKILL")
        self._program.wait(10.0)

    @property
    def pid(self) -> int | None:
        return None if self._program is None else self._program.pid

    def describe_exit(self) -> str:
        assert self._program is not None
        return self._program.describe_exit()


def log_as_json(name: str) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format='{"event": "%(message)s"}')
    if name != "supervisor":
        return
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def child_of(raw: dict[str, Any], arena: Path) -> ChildSpec | ServiceSpec:
    raw = dict(raw)
    name = raw.pop("name")
    if raw.pop("service", False):
        return ServiceSpec(name, Camp(arena, name), **raw)
    settings = {"arena": str(arena), **raw.pop("settings", {})}
    restart = Restart(raw.pop("restart", "permanent"))
    return ChildSpec(name, Soldier, settings, restart=restart, **raw)


def topology_of(raw: dict[str, Any], arena: Path) -> Topology:
    groups = []
    for group in raw["groups"]:
        options = dict(group)
        children = tuple(child_of(child, arena) for child in options.pop("children"))
        strategy = Strategy(options.pop("strategy", "one_for_one"))
        backoff = Backoff(**{"minimum": 0.01, "maximum": 0.05, **options.pop("backoff", {})})
        groups.append(Group(children=children, strategy=strategy, backoff=backoff, **options))
    edges = tuple(Edge(s, r, EdgeKind(kind)) for s, r, kind in raw.get("edges", ()))
    return Topology(
        tuple(groups),
        edges,
        (Poke,),
        dead_letters=functools.partial(FileDeadLetters, arena / "letters"),
        logging=log_as_json,
        epoch=lambda: int(raw.get("epoch", 0)),
        closing=lambda: trace(arena, "closing"),
    )


def main() -> int:
    # Imported late, as every child imports this module again.
    from engine.rundir import RunDirectory
    from engine.supervisor import Supervisor

    arena = Path(sys.argv[1])
    log_as_json("supervisor")
    topology = topology_of(json.loads(sys.argv[2]), arena)
    with RunDirectory("run", arena) as run:
        outcome = Supervisor(topology, run.path, seed=1).run()
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
