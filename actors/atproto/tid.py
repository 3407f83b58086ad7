"""Timestamp identifiers (TIDs): 13 characters that sort as the moments they name.

A TID is 53 bits of microseconds since 1970 and 10 bits of a clock's id, in base32-sortable.
Source: the atproto
specification, "Timestamp Identifiers (TIDs)".
"""

import re
from typing import Final

from actors.atproto.errors import Reason, WireError, shorten

ALPHABET: Final = "234567abcdefghijklmnopqrstuvwxyz"
MAX_MICROSECONDS: Final = (1 << 53) - 1

_SYNTAX: Final = re.compile(r"[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}")
_PAIRS: Final = [high + low for high in ALPHABET for low in ALPHABET]
_TO_BASE32: Final = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")

_match = _SYNTAX.fullmatch


def is_valid(text: str) -> bool:
    """Whether `text` has the syntax of a TID."""
    return _match(text) is not None


def to_microseconds(text: str) -> int:
    """Microseconds since 1970 of a TID. Raises WireError(BAD_TID)."""
    return to_integer(text) >> 10


def to_integer(text: str) -> int:
    """The 63 bits of a TID. Raises WireError(BAD_TID)."""
    if _match(text) is None:
        raise WireError(Reason.BAD_TID, f"not a TID: {shorten(text)}")
    return int(text.translate(_TO_BASE32), 32)


def from_integer(value: int) -> str:
    """The TID of 63 bits. Raises ValueError where they do not fit."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"a TID holds 63 bits, not {value}")
    pairs = _PAIRS
    return (
        ALPHABET[value >> 60]
        + pairs[value >> 50 & 1023]
        + pairs[value >> 40 & 1023]
        + pairs[value >> 30 & 1023]
        + pairs[value >> 20 & 1023]
        + pairs[value >> 10 & 1023]
        + pairs[value & 1023]
    )


def from_microseconds(microseconds: int, clock_id: int) -> str:
    """The TID of a moment (microseconds since 1970) and a clock id (0 to 1023)."""
    if not 0 <= clock_id < 1024:
        raise ValueError(f"a clock id is 0 to 1023, not {clock_id}")
    return from_integer(microseconds << 10 | clock_id)


def after(previous: str | None, microseconds: int, clock_id: int) -> str:
    """The TID of this moment, or one microsecond after `previous` where that is not earlier."""
    if previous is not None:
        microseconds = max(microseconds, (to_integer(previous) >> 10) + 1)
    return from_microseconds(microseconds, clock_id)
