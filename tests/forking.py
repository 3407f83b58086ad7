"""Processes for the actors of tests, forked from one that has imported what they need.

The program spawns its processes, which import everything anew: half a second of work each, more
than nearly all tests do beside it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import Any, Final

__all__ = ["CONTEXT", "process"]

CONTEXT: Final[ForkServerContext] = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "actors.ingest",
        "actors.label_client",
        "actors.notifier",
        "actors.pds_fetcher",
        "actors.pending",
        "actors.resolver",
        "actors.shard",
        "actors.user_gate",
        "tests.unit.engine_harness",
    ]
)


def process(target: Callable[..., None], *args: Any) -> BaseProcess:
    """A process, not started, whose output goes where that of this one goes now."""
    outputs = (_Descriptor(1), _Descriptor(2))
    return CONTEXT.Process(target=_run, args=(outputs, dict(os.environ), target, args))


def _run(
    outputs: tuple[_Descriptor, _Descriptor],
    environment: dict[str, str],
    target: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    # What it is forked from has those of the time when the first was asked for.
    os.environ.clear()
    os.environ.update(environment)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output.number, number)
        os.close(output.number)
    target(*args)


class _Descriptor:
    """An open file that is there in the new process too, under another number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.number),)


def _received(sent: Any) -> _Descriptor:
    return _Descriptor(sent.detach())
