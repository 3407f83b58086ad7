"""What the validation of a record costs, beside lexrpc's own validator in the same run.

Both are given the valid likes and posts of a capture, decoded, in the form each wants. Prints one
JSON line: microseconds per record in the best of several rounds, ours and lexrpc's, the ratio, and
what decoding such a record costs.

    python -m bench.lexicon
"""

import json
import logging
import re
from base64 import b64decode
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import click
from lexrpc.base import Base
from multiformats import CID

from actors import capture
from actors.atproto import commit, datamodel, frames
from actors.atproto.events import Commit
from actors.lexicons import Lexicons
from bench.wire import microseconds

PART: Final = 50
KINDS: Final = {"like": "app.bsky.feed.like", "post": "app.bsky.feed.post"}
_LINK: Final = re.compile(r"baf[ky]rei[a-z2-7]{52}")
_BYTES: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2,3})?")

_cid = cache(CID.decode)


def for_lexrpc(value: Any) -> Any:
    """The value with its links and bytes as lexrpc wants them."""
    match value:
        case {"$link": str(text)} if len(value) == 1 and _LINK.fullmatch(text):
            return _cid(text)
        case {"$bytes": str(text)} if len(value) == 1 and _BYTES.fullmatch(text):
            return b64decode(text + "=" * (-len(text) % 4))
        case dict():
            return {key: for_lexrpc(item) for key, item in value.items()}
        case list():
            return [for_lexrpc(item) for item in value]
        case _:
            return value


def _ours(lexicons: Lexicons, collection: str, record: tuple[str, dict[str, Any]]) -> None:
    lexicons.validate(collection, *record)


def _microseconds(call: Callable[[Any], Any], values: list[Any], rounds: int) -> float:
    """Microseconds per call. A part takes less than a turn on the processor, and has its best."""
    parts = [values[start : start + PART] for start in range(0, len(values), PART)]
    return sum(microseconds(call, part, rounds) * len(part) for part in parts) / len(values)


@click.command(help="Print the cost of validating likes and posts, as one line of JSON.")
@click.argument(
    "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1))
def main(path: Path | None, rounds: int) -> None:
    """Measure, and print one JSON line."""
    # It logs whenever a union holds a type that it does not know; that is not what is measured.
    logging.disable(logging.CRITICAL)
    lexicons, base = Lexicons(), Base(require_lexicons=False)
    blocks: dict[str, list[bytes]] = {kind: [] for kind in KINDS.values()}
    decoded: dict[str, list[tuple[str, dict[str, Any]]]] = {kind: [] for kind in KINDS.values()}
    for frame in capture.read(path or capture.DEMO):
        event = frames.decode(frame)
        if not isinstance(event, Commit):
            continue
        for op in commit.open_commit(event).ops:
            if op.record is not None and op.collection in blocks:
                data, _ = datamodel.to_data(op.record)
                if lexicons.validate(op.collection, op.rkey, data) is None:
                    blocks[op.collection].append(op.record)
                    decoded[op.collection].append((op.rkey, data))
    report: dict[str, Any] = {}
    for name, collection in KINDS.items():
        cases: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
            "ours_us": (partial(_ours, lexicons, collection), decoded[collection]),
            "lexrpc_us": (
                partial(base.validate, collection, "record"),
                [for_lexrpc(data) for _, data in decoded[collection]],
            ),
            "decode_us": (datamodel.to_data, blocks[collection]),
        }
        best = {
            case: round(_microseconds(call, values, rounds), 2)
            for case, (call, values) in cases.items()
        }
        ratio = round(best["ours_us"] / best["lexrpc_us"], 3)
        report[name] = {"records": len(decoded[collection]), **best, "ratio": ratio}
    click.echo(json.dumps({"bench": "lexicon", "rounds": rounds, **report}))


if __name__ == "__main__":
    main()
