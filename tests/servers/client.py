"""The outbound client as tests use it."""

import asyncio
import tomllib
from collections import Counter
from typing import Any

import msgspec

from config.loader import DEFAULTS
from config.settings import NetworkSettings


def network(**changes: Any) -> NetworkSettings:
    """The settings of the network by default, but for these changes."""
    sections = tomllib.loads(DEFAULTS.read_text())
    return msgspec.convert({**sections["network"], **changes}, NetworkSettings)


class Counts(Counter[tuple[str, str]]):
    """What the client counted, by kind and outcome; to be given as `count`."""

    def __call__(self, kind: str, outcome: str) -> None:
        self[kind, outcome] += 1


class VirtualClock:
    """Time that passes only when it is told to, or when somebody waits by it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self.slept: list[float] = []

    def now(self) -> float:
        """See `engine.clock.Clock`."""
        return self._now

    def monotonic(self) -> float:
        """See `engine.clock.Clock`."""
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    async def sleep(self, seconds: float) -> None:
        """Let time pass; to be given as `sleep`."""
        self.slept.append(seconds)
        self._now += seconds
        await asyncio.sleep(0)


def developing(**changes: Any) -> NetworkSettings:
    """Settings with which loopback may be asked, without TLS, at any port, and at once."""
    return network(**{"allow_private_hosts": True, "requests_per_second": 1000.0, **changes})
