"""Where a run begins in a stream: after the checkpoint, or where it was asked to."""

import logging
from dataclasses import dataclass
from typing import Final, NamedTuple

from actors.position import Position
from actors.sequence import Sequence
from actors.store.checkpoint import CheckpointError, Saved
from config.source import Start
from config.units import show_duration
from engine.context import Context

_log = logging.getLogger(__name__)

REWIND_SECONDS: Final = 300.0
"""How far before what was read last a host is read that counts in another way: the times of events
are only nearly in order, and may be as far ahead. What comes again changes nothing."""


class Claimed(NamedTuple):
    """What is saved of a host; whether this run has begun, as a generation that died before it
    saved had not; and the Unix time up to which another host has been read.
    """

    saved: Saved | None
    begun: bool
    elsewhere: float | None


def claim(position: Position, context: Context, outage_seconds: float) -> Claimed:
    """Take the checkpoint over, and return it; the database may be away for as long as an outage.

    Raises CheckpointError after that time, CheckpointUnusable, and Fenced.
    """
    deadline = context.clock.monotonic() + outage_seconds
    failures = 0
    while True:
        try:
            saved = position.claim()
            begun = context.generation > 1 and position.saved_in_this_run()
            elsewhere = position.elsewhere()
        except CheckpointError as error:
            if context.clock.monotonic() > deadline:
                raise
            if failures == 0:
                _log.warning("%s; trying again", error)
            failures += 1
            context.wait(min(5.0, 0.2 * 2**failures))
        else:
            return Claimed(saved, begun, elsewhere)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where to begin.

    Attributes:
        last: number of the event after which the stream goes on; -1 for none.
        time: Unix time of that event, where known.
        asked: the cursor that stands for, where nothing is known that proves it.
        moment: Unix time that is to be looked for in the stream.
        live: whether it begins with what comes from now on.
        chosen: whether it is another place than the checkpoint's.
    """

    last: int = -1
    time: float | None = None
    asked: int | None = None
    moment: float | None = None
    live: bool = False
    chosen: bool = True


def begin(
    saved: Saved | None,
    start: Start,
    *,
    insists: bool,
    name: str,
    now: float,
    elsewhere: float | None = None,
) -> Beginning:
    """Decide where the stream of the source called `name` begins, and say it.

    `start` counts where nothing is saved, or where it `insists`; `now` is in Unix seconds. Up to
    the time `elsewhere` another source has been read, and numbers mean nothing across sources.
    """
    if elsewhere is not None and not insists:
        elsewhere = min(elsewhere, now)
        moment = elsewhere - REWIND_SECONDS
        if saved is None or saved.last_event_time is None or saved.last_event_time < moment:
            _log.info(
                "going on with %s a little before where another source was left, %s ago",
                *(name, show_duration(max(0.0, now - moment))),
            )
            return Beginning(time=elsewhere, moment=moment)
    if saved is not None and not insists:
        _log.info("going on with %s after event %d", name, saved.cursor)
        # 0 asks for the oldest and says nothing about an event of that number.
        last, time = saved.cursor or -1, saved.last_event_time
        asked = last if last > 0 and time is None else None
        return Beginning(last, time, asked, chosen=False)
    if saved is not None:
        _log.warning(
            "the checkpoint %d of %s is given up for the start asked for", saved.cursor, name
        )
    match start.kind:
        case "live":
            _log.info("starting with what %s sends from now on", name)
            return Beginning(live=True)
        case "oldest":
            _log.info("starting with the oldest event that %s holds", name)
            return Beginning()
        case "cursor":
            _log.info("starting with event %d of %s", start.cursor, name)
            return Beginning(start.cursor - 1, asked=start.cursor or None)
        case "since":
            _log.info("starting %s back from now in %s", show_duration(start.seconds), name)
            return Beginning(moment=now - start.seconds)


def renumbered(sequence: Sequence, *, name: str, now: float) -> float:
    """Return the Unix time from which a source is looked through that counts anew, and say it."""
    known, asked = sequence.time, sequence.asked
    _log.error(
        "%s numbers its events anew: what follows event %d is looked for by its time"
        if asked is None
        else "%s is not at the cursor %d yet that was asked for: going on at its newest",
        name,
        sequence.last if asked is None else asked,
    )
    return (now if known is None else known) - REWIND_SECONDS
