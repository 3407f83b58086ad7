"""What a run shows while it goes on: a live view on a terminal, else a log line at intervals."""

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from typing import Final

import structlog
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.vitals import INGEST, Vitals, vitals
from config.units import show_duration
from engine.status import ChildStatus, Status

RATE_SECONDS: Final = 10.0
"""The rate shown is the mean over this time."""

_STYLES: Final = {"ready": "green", "starting": "yellow", "waiting": "red", "ending": "yellow"}

log = structlog.get_logger("progress")


class Rate:
    """Events a second over the last seconds, from a counter that starts anew with its actor."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._before = 0
        self._total = 0

    def add(self, at_seconds: float, counter: int) -> float:
        """Takes the counter's value at this time; returns the rate."""
        self._total += counter - self._before if counter >= self._before else counter
        self._before = counter
        self._seen.append((at_seconds, self._total))
        while len(self._seen) > 2 and at_seconds - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        first_at, first = self._seen[0]
        passed = at_seconds - first_at
        return (self._total - first) / passed if passed > 0 else 0.0


class LogProgress:
    """Give `tick` to the supervisor: it logs one line every `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = interval
        self._rate = Rate()

    def tick(self, status: Status) -> None:
        seen = vitals(status)
        rate = self._rate.add(status.up_seconds, seen.events)
        if status.up_seconds < self._next:
            return
        self._next = status.up_seconds + self._interval
        if status.phase != "running":
            log.info(status.phase, waiting_for=_waiting(status) or "nothing")
            return
        log.info(
            "progress",
            events=seen.events,
            events_per_second=round(rate),
            lag_seconds="unknown" if seen.lag_seconds is None else round(seen.lag_seconds, 1),
            connected=seen.connected,
            checkpoint=seen.checkpoint,
            backlog=" ".join(f"{name}:{count}" for name, count in backlogs(status).items()),
            restarts=seen.restarts,
        )


def backlogs(status: Status) -> dict[str, int]:
    """Frames that each shard has not acknowledged, or what lies in its process where more."""
    ingest = next((child for child in status.children if child.name == INGEST), None)
    shards = [child for child in status.children if child.group == "shard"]
    return {child.name: _backlog(child, ingest) for child in shards}


def _backlog(child: ChildStatus, ingest: ChildStatus | None) -> int:
    window = ingest.metrics.value("ingest_window_frames", shard=child.name) if ingest else 0.0
    return max(child.backlog, int(window))


def _waiting(status: Status) -> str:
    names = (
        f"{child.name} ({child.note})" if child.note else child.name
        for child in status.children
        if child.state not in {"ready", "done"}
    )
    return ", ".join(names)


def draw(status: Status, seen: Vitals, rate: float) -> Group:
    """The live view of one moment."""
    lag = "unknown" if seen.lag_seconds is None else show_duration(seen.lag_seconds)
    source = "connected" if seen.connected else "not connected"
    head = Text.assemble(
        ("skyshard ", "bold"),
        f"{status.phase}  up {show_duration(status.up_seconds)}  ",
        (f"{rate:,.0f} events/s", "bold"),
        f"  lag {lag}  source {source}  checkpoint {seen.checkpoint}  restarts {seen.restarts}",
    )
    table = Table(box=None, pad_edge=False)
    for name in ("actor", "state", "backlog", "handled", "memory", "restarts", ""):
        right = name in {"backlog", "handled", "memory", "restarts"}
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    waiting = backlogs(status)
    for child in status.children:
        table.add_row(
            child.name,
            Text(child.state, _STYLES.get(child.state, "dim")),
            str(waiting.get(child.name, child.backlog)),
            "" if child.service else f"{child.handled:,}",
            _memory(child),
            str(child.restarts or ""),
            Text(_remark(child), "dim"),
        )
    return Group(head, table)


def _memory(child: ChildStatus) -> str:
    """Of an actor that has a process; a service's memory is that of processes unknown to us."""
    if child.service or child.pid is None:
        return ""
    return f"{child.memory_bytes // 1_000_000} MB"


def _remark(child: ChildStatus) -> str:
    """What it is busy with, or how it ended; a service that is ready is busy with nothing."""
    match child.state:
        case "waiting" | "done":
            return child.last_exit
        case "ready":
            return "" if child.service else child.note
        case "starting":
            return child.note
        case _:
            return ""


class _LiveProgress:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._rate = Rate()

    def tick(self, status: Status) -> None:
        seen = vitals(status)
        rate = self._rate.add(status.up_seconds, seen.events)
        self._live.update(draw(status, seen, rate), refresh=True)


@contextmanager
def live_progress() -> Iterator[_LiveProgress]:
    """A live view at the foot of the terminal, below the log of all processes.

    Every process writes its log to the terminal by itself and would tear the view apart. So what
    standard error is, is a pipe as long as the block lasts, for the children too, and its lines are
    printed above the view.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    stopped = threading.Event()
    with os.fdopen(terminal, "w", encoding="utf-8", errors="replace") as stream:
        console = Console(file=stream, force_terminal=True)
        pump = threading.Thread(target=_print_lines, args=(reader, console, stopped), daemon=True)
        pump.start()
        try:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                yield _LiveProgress(live)
        finally:
            sys.stderr.flush()
            os.dup2(stream.fileno(), 2)
            stopped.set()
            pump.join()
            os.close(reader)


def _print_lines(reader: int, console: Console, stopped: threading.Event) -> None:
    """Prints what comes through the pipe, until it is empty after the block was left.

    It has no end of its own: processes that outlive the block may hold the other end.
    """
    rest = b""
    while True:
        # Read before looking, so that nothing is left behind what comes last.
        last = stopped.is_set()
        if not select([reader], [], [], 0.1)[0]:
            if last:
                break
            continue
        data = os.read(reader, 65536)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            console.print(Text.from_ansi(line.decode("utf-8", "replace")), soft_wrap=True)
        if not data:
            break
    if rest:
        console.print(Text.from_ansi(rest.decode("utf-8", "replace")), soft_wrap=True)
