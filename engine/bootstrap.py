"""What the process of an actor does from its birth to its exit code."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NoReturn

from engine import control, crashpoint
from engine.carrier import Carrier
from engine.child import Boot
from engine.clock import Clock, SystemClock
from engine.context import Context
from engine.control import Fault, Stopped
from engine.errors import Stopping
from engine.exchange import Exchange
from engine.message import Codec
from engine.metrics import Metrics
from engine.transport import SocketCarrier

logger = logging.getLogger(__name__)

EXIT_OK = 0
"""The actor stopped in good order."""
EXIT_FAULT = 1
"""An unexpected exception ended it; the log has its traceback, the supervisor its reason."""
EXIT_ORPHANED = 3
"""The supervisor was gone."""

_LAST_WORDS_SECONDS = 1.0
_HIGH_WATER_FLOOR = 1000
_HIGH_WATER_TIMES = 4


def run_actor(boot: Boot) -> int:
    """Run an actor in this process and thread until it ends; returns the exit code."""
    carrier = SocketCarrier(
        boot.name,
        boot.generation,
        control.inbox_endpoint(boot.run_dir, boot.name, boot.generation),
        boot.control_endpoint,
        _high_water(boot),
    )
    clock = SystemClock() if boot.clock is None else boot.clock()
    failure = run_on(carrier, boot, clock)
    if failure is None:
        carrier.report(Stopped())
    else:
        carrier.report(Fault(reason_of(failure)))
    carrier.close(_LAST_WORDS_SECONDS)
    return EXIT_OK if failure is None else EXIT_FAULT


def run_on(
    carrier: Carrier,
    boot: Boot,
    clock: Clock,
    crash_points: crashpoint.CrashPoints | None = None,
) -> BaseException | None:
    """Run an actor on any carrier until it ends; returns what ended it, None for good order."""
    if crash_points is None:
        crash_points = crashpoint.CrashPoints(
            boot.crash_points, boot.name, crashpoint.directory(Path(boot.run_dir))
        )
    actor = context = None
    try:
        exchange = Exchange(
            boot.name,
            boot.generation,
            boot.edges,
            Codec(boot.messages),
            carrier,
            clock,
            Metrics(),
            dead_letters=boot.dead_letters,
            lifeline=boot.parent_sentinel,
            signals=boot.signal_descriptor,
            orphaned=_end_as_orphan,
        )
        context = Context(exchange, boot.epoch, crash_points)
        actor = boot.actor(context, boot.settings)
        actor.run()
        if actor.failure is None:
            exchange.close()
    except Stopping:
        return None
    except Exception as error:
        # What the loop itself raises, outside of any handler, is a fault like all others.
        logger.exception("%s (generation %d) ends by a fault", boot.name, boot.generation)
        return error
    finally:
        if context is not None:
            context.end()
    return actor.failure


def reason_of(failure: BaseException) -> str:
    """Return an exception as one line for the supervisor and its log."""
    text = " ".join(str(failure).split())
    name = type(failure).__name__
    return f"{name}: {text}" if text else name


def _high_water(boot: Boot) -> int:
    widest = max((edge.messages for edge in boot.edges), default=0)
    return max(_HIGH_WATER_FLOOR, _HIGH_WATER_TIMES * widest)


def _end_as_orphan() -> NoReturn:
    """End at once: without a supervisor nobody would start peers again or stop this process."""
    logger.error("the supervisor is gone; this process ends, and what it held will be repeated")
    logging.shutdown()
    os._exit(EXIT_ORPHANED)
