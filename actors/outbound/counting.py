"""The figures of outbound requests."""

from collections.abc import Callable, Iterable
from typing import Final

from actors.outbound.errors import Kind
from engine.metrics import Metrics

REQUESTS: Final = "outbound_requests_total"
ABANDONED: Final = "abandoned"
"""The outcome of a request that its caller gave up."""

OUTCOMES: Final = ("ok", "http_3xx", "http_4xx", ABANDONED, *Kind)


def counting(metrics: Metrics, kinds: Iterable[str]) -> Callable[[str, str], None]:
    """What counts requests of these kinds in an actor's metrics.

    It is called in the I/O thread, so every counter is made beforehand and none by it: a snapshot
    may be under way in the actor's own. Calling it raises KeyError for another kind.
    """
    counters = {
        (kind, str(outcome)): metrics.counter(
            REQUESTS,
            "Requests to the network, by kind and outcome",
            kind=kind,
            outcome=str(outcome),
        )
        for kind in kinds
        for outcome in OUTCOMES
    }

    def count(kind: str, outcome: str) -> None:
        counters[kind, outcome].add()

    return count
