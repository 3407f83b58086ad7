"""The recorded network, by name; what each file holds is told in data/README.md."""

import csv
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from actors import capture

DATA = Path(__file__).parent / "data"


@cache
def demo_frames() -> tuple[bytes, ...]:
    """Every message of the recorded firehose."""
    return tuple(capture.read(capture.DEMO))


@cache
def replay_frames() -> tuple[bytes, ...]:
    """The same network, read afterwards from cursor 0."""
    return tuple(capture.read(DATA / "network-replay.frames.gz"))


@cache
def label_frames() -> tuple[bytes, ...]:
    """Every message of the recorded labeler."""
    return tuple(capture.read(DATA / "labels.frames.gz"))


@cache
def document(name: str) -> dict[str, Any]:
    """One of the JSON files, such as `did-documents` or `special`."""
    loaded: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return loaded


@cache
def repositories() -> dict[str, bytes]:
    """The CAR of each repository at the end, by file name without endings."""
    return {
        path.name.removesuffix(".car.gz"): gzip.decompress(path.read_bytes())
        for path in sorted((DATA / "repos").glob("*.car.gz"))
    }


@cache
def oracle(table: str) -> tuple[dict[str, str], ...]:
    """The rows of a table of the network's own index."""
    with gzip.open(DATA / "oracle" / f"{table}.csv.gz", "rt", newline="") as file:
        return tuple(csv.DictReader(file))
