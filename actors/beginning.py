"""Where a run begins in a stream: after the checkpoint, or where it was asked to."""

import logging
from dataclasses import dataclass

from actors.position import Position
from actors.store.checkpoint import CheckpointError, Saved
from config.source import Start
from config.units import show_duration
from engine.context import Context

_log = logging.getLogger(__name__)


def claim(position: Position, context: Context, outage_seconds: float) -> tuple[Saved | None, bool]:
    """Take the checkpoint over, and return it; the database may be away for as long as an outage.

    Returns as well whether this run has begun: a generation that died before it saved had not.
    Raises CheckpointError after that time, CheckpointUnusable, and Fenced.
    """
    deadline = context.clock.monotonic() + outage_seconds
    failures = 0
    while True:
        try:
            saved = position.claim()
            begun = context.generation > 1 and position.saved_in_this_run()
        except CheckpointError as error:
            if context.clock.monotonic() > deadline:
                raise
            if failures == 0:
                _log.warning("%s; trying again", error)
            failures += 1
            context.wait(min(5.0, 0.2 * 2**failures))
        else:
            return saved, begun


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


def begin(saved: Saved | None, start: Start, *, insists: bool, name: str, now: float) -> Beginning:
    """Decide where the stream of the source called `name` begins, and say it.

    `start` counts where nothing is saved, or where it `insists`; `now` is in Unix seconds.
    """
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
