"""What labels come to, said once more and as plainly as can be, for the table to be held against.

Of the labels of one source, subject, version of the subject and value, the newest counts; of one
moment a negation, else the one with the greater signature. It holds while it is no negation and has
not expired.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of `labels`, as far as it follows from the labels."""

    src: str
    uri: str
    cid: str | None
    val: str
    neg: bool
    cts: str
    exp: str | None
    sig: bytes


def rows(labels: Iterable[dict[str, Any]], now: float) -> set[Row]:
    """The table after these labels, all of them good, at `now` (Unix seconds)."""
    of_key: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for label in labels:
        key = (label["src"], label["uri"], label.get("cid"), label["val"])
        of_key.setdefault(key, []).append(label)
    return {_row(max(several, key=_age), now) for several in of_key.values()}


def _age(label: dict[str, Any]) -> tuple[float, bool, bytes]:
    return _moment(label["cts"]), bool(label.get("neg")), label["sig"]


def _row(label: dict[str, Any], now: float) -> Row:
    exp = label.get("exp")
    over = bool(label.get("neg")) or (exp is not None and _moment(exp) <= now)
    return Row(
        label["src"],
        label["uri"],
        label.get("cid"),
        label["val"],
        over,
        label["cts"],
        exp,
        label["sig"],
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
