"""How long the wire format takes for each step of an event, on one core.

Runs over the bundled capture, takes the best of several rounds, and prints one JSON line with
microseconds per frame or record: `peek` and `decode` over all frames, `car` and `open` (CAR
included) over all commits, `record` over all records (and for likes and posts alone), and the same
for a frame of about 4 KB.

    python -m bench.wire
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from actors import capture
from actors.atproto import car, commit, datamodel, frames
from actors.atproto.events import Commit

FRAME_SIZE: Final = 4096


def microseconds(call: Callable[[Any], Any], values: Sequence[Any], rounds: int) -> float:
    """Microseconds per call, in the best of several rounds over the values."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for value in values:
            call(value)
        best = min(best, time.perf_counter() - started)
    return round(best / len(values) * 1e6, 2)


@click.command(help="Print the time of each step of the wire format, as one line of JSON.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Measure, and print one JSON line."""
    sent = list(capture.read(capture.DEMO))
    commits = [event for event in map(frames.decode, sent) if isinstance(event, Commit)]
    records: dict[str, list[bytes]] = {}
    for event in commits:
        for op in commit.open_commit(event).ops:
            if op.record is not None:
                records.setdefault(op.collection, []).append(op.record)
    typical = [min(sent, key=lambda frame: abs(len(frame) - FRAME_SIZE))] * 1000
    typical_commits = [event for event in map(frames.decode, typical) if isinstance(event, Commit)]
    every = [record for group in records.values() for record in group]
    cases: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
        "peek": (frames.peek, sent),
        "decode": (frames.decode, sent),
        "car": (car.read, [event.blocks for event in commits]),
        "open": (commit.open_commit, commits),
        "record": (datamodel.to_data, every),
        "like": (datamodel.to_data, records["app.bsky.feed.like"]),
        "post": (datamodel.to_data, records["app.bsky.feed.post"]),
        "peek_4k": (frames.peek, typical),
        "decode_4k": (frames.decode, typical),
        "car_4k": (car.read, [event.blocks for event in typical_commits]),
        "open_4k": (commit.open_commit, typical_commits),
    }
    result = {name: microseconds(*case, rounds) for name, case in cases.items()}
    click.echo(json.dumps({"bench": "wire", "frames": len(sent), "microseconds": result}))


if __name__ == "__main__":
    main()
