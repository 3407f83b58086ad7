"""The report of a run that has caught up: one JSON object, and the same for people."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from actors.vitals import (
    COMMITS,
    DISCONTINUOUS,
    DROPS,
    EVENTS,
    INGEST_DROPS,
    OPERATIONS,
    REPLAYED,
    USERS_CREATED,
)
from config.units import show_duration
from engine.metrics import CounterFamily, MetricsSnapshot
from engine.status import Status

_FIRST: Final = ("events", "commits", "ops", "drops", "restarts", "checkpoint")


class Tally:
    """The counters of all actors over all their generations, from the statuses of a run.

    What a generation counted since its last report is lost when it is killed, while what it had
    committed is known to the next: so after a crash the sums may be a little too low.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], MetricsSnapshot] = {}

    def tick(self, status: Status) -> None:
        """Takes what each child last reported; to be called once more when all have ended."""
        for child in status.children:
            if child.metrics.families:
                self._last[child.name, child.generation] = child.metrics

    def then(self, tick: Callable[[Status], None]) -> Callable[[Status], None]:
        """A tick that counts and then does another."""

        def both(status: Status) -> None:
            self.tick(status)
            tick(status)

        return both

    def total(self, name: str) -> int:
        """The sum of a counter over all its labels."""
        return sum(self.by_label(name).values())

    def by_label(self, name: str, *labels: str) -> dict[str, int]:
        """The sums of a counter by the values of these labels."""
        sums: dict[str, int] = {}
        for snapshot in self._last.values():
            for family in snapshot.families:
                if family.name != name or not isinstance(family, CounterFamily):
                    continue
                for sample in family.samples:
                    values = dict(sample.labels)
                    key = " ".join(values.get(label, "") for label in labels)
                    sums[key] = sums.get(key, 0) + int(sample.value)
        return sums


def complete(
    report: Mapping[str, Any], tally: Tally, restarts: Mapping[str, int], seconds: float
) -> dict[str, Any]:
    """The report of ingest with what the other actors counted, the known keys first.

    ``events`` were read, those read again after a crash included; ``commits`` and ``ops`` were
    applied in this run, ``replayed`` had been before. ``seconds`` and ``events_per_second`` are
    those of ingest, or else of the whole run.
    """
    events = max(tally.total(EVENTS), report.get("events", 0))
    filled: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "events_per_second": round(events / max(seconds, 1e-9), 1),
        **report,
        "events": events,
        "commits": tally.total(COMMITS),
        "ops": tally.total(OPERATIONS),
        "drops": _sum(tally.by_label(DROPS, "reason"), tally.by_label(INGEST_DROPS, "reason")),
        "restarts": dict(restarts),
        "replayed": tally.total(REPLAYED),
        "discontinuous": tally.total(DISCONTINUOUS),
        "users_created": tally.total(USERS_CREATED),
        "applied": dict(sorted(tally.by_label(OPERATIONS, "table", "action").items())),
    }
    return {key: filled[key] for key in dict.fromkeys((*_FIRST, *filled)) if key in filled}


def _sum(*parts: Mapping[str, int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0) + value
    return sums


def show(report: Mapping[str, Any]) -> str:
    """A few aligned lines for people."""
    lines = []
    for key, value in report.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            inner = sorted(value.items(), key=lambda item: (-_number(item[1]), item[0]))
            lines += [f"{name:<18} {'none' if not inner else ''}".rstrip()]
            lines += [f"  {inner_name:<36} {inner_value:>10}" for inner_name, inner_value in inner]
        elif key == "seconds":
            lines.append(f"{'time':<18} {show_duration(float(value))}")
        else:
            lines.append(f"{name:<18} {value}")
    return "\n".join(lines)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
