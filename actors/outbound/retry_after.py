"""For how long a host asks to be left alone. Pure."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

UNTOLD_SECONDS: Final = 30.0
"""How long a host is left alone that refuses by its rate limit and does not say for how long."""

# Larger numbers in RateLimit-Reset are moments, smaller ones seconds from now.
_A_MOMENT: Final = 1e9


def asked_pause(status: int, headers: Mapping[str, str], now: float, longest: float) -> float:
    """Seconds for which an answer asks for a pause; 0.0 when it does not.

    `now` is in Unix seconds. Only 429 and 503 ask. `Retry-After` is a number or a date, and
    `RateLimit-Reset` what many servers send in its place; whatever they say is at most `longest`.
    """
    if status not in (429, 503):
        return 0.0
    told = _seconds(headers.get("retry-after", ""), now)
    if told is None and status == 429:
        told = _reset(headers.get("ratelimit-reset", ""), now)
    if told is None:
        told = UNTOLD_SECONDS if status == 429 else 0.0
    return min(max(told, 0.0), longest)


def _seconds(text: str, now: float) -> float | None:
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text[:64])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _reset(text: str, now: float) -> float | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    value = float(text[:12])
    return value - now if value > _A_MOMENT else value
