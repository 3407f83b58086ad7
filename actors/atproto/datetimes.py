"""Times as the protocol writes them (RFC 3339, any offset), as naive UTC `datetime`s.

Naive, because that is what a PostgreSQL `timestamp` column holds and what costs least to make;
every `datetime` in `actors/atproto` is UTC.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

MAX_LENGTH: Final = 64

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - naive UTC is this module's own convention
_MICROSECOND: Final = timedelta(microseconds=1)
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def parse(text: object) -> datetime | None:
    """The moment an RFC 3339 string names, as a naive UTC datetime; None where it names none.

    Digits past the microsecond are cut. A leap second (`:60`) is the first moment of the next
    minute. None: no string, no offset, years that `datetime` cannot hold (before 1 or after 9999,
    also once the offset is taken off), days and hours that do not exist.
    """
    if type(text) is not str:
        return None
    if (
        len(text) == 24
        and text[23] == "Z"
        and text[10] == "T"
        and text[19] == "."
        and text[20:23].isdigit()
        and text[16] == ":"
        and text[7] == "-"
    ):
        try:
            return datetime.fromisoformat(text[:23])
        except ValueError:
            return None
    return _parse_any(text)


def _parse_any(text: str) -> datetime | None:
    if len(text) > MAX_LENGTH:
        return None
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, clock, second, fraction, sign, hours, minutes = match.groups()
    leap = second == "60"
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}:{'59' if leap else second}")
        if leap:
            moment += timedelta(seconds=1)
        elif fraction:
            moment = moment.replace(microsecond=int(fraction[:6].ljust(6, "0")))
        if sign:
            if hours > "23" or minutes > "59":
                return None
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):
        return None
    return moment


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of a naive UTC datetime."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The naive UTC datetime of microseconds since 1970. Raises OverflowError past year 9999."""
    return _EPOCH + timedelta(microseconds=microseconds)


def from_unix(seconds: float) -> datetime:
    """The naive UTC datetime of Unix seconds, as clocks give them."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def to_text(moment: datetime) -> str:
    """`2024-01-31T12:00:00.000Z`: the form real servers write, in milliseconds."""
    return moment.isoformat(timespec="milliseconds") + "Z"
