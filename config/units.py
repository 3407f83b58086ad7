"""Durations and sizes as people write them: ``90s``, ``2h``, ``3d``; ``4kB``, ``32MiB``."""

import re
from typing import Final

_NUMBER: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)

_SECONDS: Final[dict[str, float]] = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}

_BYTES: Final[dict[str, int]] = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KIB": 1024,
    "MIB": 1024**2,
    "GIB": 1024**3,
    "TIB": 1024**4,
}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90s``, ``1.5h`` or ``3d``; a bare number is seconds.

    Raises ValueError when the text is no duration.
    """
    match = _NUMBER.fullmatch(text)
    unit = _SECONDS.get(match.group(2).lower() or "s") if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no duration; write it like 90s, 15m, 2h or 3d")
    return float(match.group(1)) * unit


def parse_size(text: str) -> int:
    """Bytes of a size such as ``32MiB`` or ``4kB``; a bare number is bytes.

    Raises ValueError when the text is no size.
    """
    match = _NUMBER.fullmatch(text)
    unit = _BYTES.get(match.group(2).upper() or "B") if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is no size; write it like 4096, 64kB, 32MiB or 1GiB")
    return int(float(match.group(1)) * unit)


def show_duration(seconds: float) -> str:
    """The duration in at most two units, for people: ``1h 12m``, ``3.2s``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, name, below, below_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit}{name} {rest}{below_name}" if rest else f"{whole // unit}{name}"
    raise AssertionError("every duration of a minute or more has a unit")
