"""What a run did, for its report: from the tallies that its transactions kept."""

from collections.abc import Mapping
from typing import Any


def summarise(tallies: Mapping[str, int], dropped: Mapping[str, int]) -> dict[str, Any]:
    """Return the report's figures; `dropped` are the frames that never reached a shard.

    `events` counts what the shards decoded (what a crash had repeated counts again), `commits` and
    `ops` what was applied, `applied` the same by table, `drops` by reason,
    `lexicon_reported` (where there are any) what validation found fault with and let through.
    """
    drops = dict(dropped)
    applied: dict[str, int] = {}
    events = 0
    reported = tallies.get("lexicon.reported", 0)
    for name, amount in tallies.items():
        kind, _, rest = name.partition(".")
        if kind == "drop":
            drops[rest] = drops.get(rest, 0) + amount
        elif kind == "events":
            events += amount
        elif kind == "ops" and rest:
            applied[rest.replace(".", " ")] = amount
    return {
        "events": events,
        "commits": tallies.get("commits", 0),
        "ops": tallies.get("ops", 0),
        "drops": dict(sorted(drops.items())),
        **({"lexicon_reported": reported} if reported else {}),
        "replayed": tallies.get("replayed", 0),
        "discontinuous": tallies.get("discontinuous", 0),
        "out_of_step": tallies.get("out_of_step", 0),
        "users_created": tallies.get("users_created", 0),
        "applied": dict(sorted(applied.items())),
    }


def timed(
    summary: Mapping[str, Any], *, checkpoint: int, handed: int, seconds: float
) -> dict[str, Any]:
    """Return the whole report: the figures, and how long it took.

    `seconds` is the work of the last generation of ingest, which handed so many events to shards;
    the wait that shows the end of a stream is no part of it.
    """
    return {
        **summary,
        "checkpoint": checkpoint,
        "seconds": round(seconds, 3),
        "events_per_second": round(handed / seconds, 1) if seconds > 0 else 0.0,
    }
