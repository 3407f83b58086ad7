"""The metrics of all processes as Prometheus text."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from engine.metrics import CounterFamily, Family, HistogramFamily
from engine.status import ChildStatus, Status

PREFIX: Final = "skyshard_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_PER_ACTOR: Final = (
    ("actor_up", "gauge", "1 while the actor is ready"),
    ("actor_restarts", "counter", "Restarts since the start of the run"),
    ("actor_handled", "counter", "Messages handled by the present generation"),
    ("actor_backlog", "gauge", "Messages that lie unhandled in the process"),
    ("actor_memory_bytes", "gauge", "Resident memory of the process (of a service: of its first)"),
    ("actor_silent_seconds", "gauge", "Time since the actor's own loop last reported progress"),
)


def render(status: Status, age_seconds: float) -> bytes:
    """One page: the run, each actor, and what each actor's own registry holds, labelled `actor`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page([*_run(status, age_seconds), *_actors(status), *_merged(status)]))
    return generate_latest(registry)


class _Page:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _one(name: str, kind: str, text: str, value: float) -> Metric:
    metric = Metric(PREFIX + name, text, kind)
    metric.add_sample(metric.name, {}, value)
    return metric


def _run(status: Status, age_seconds: float) -> Iterator[Metric]:
    yield _one("up_seconds", "gauge", "Time since the start of the run", status.up_seconds)
    yield _one("epoch", "gauge", "Number of the run on its database", status.epoch)
    yield _one("running", "gauge", "1 while nothing starts or stops", status.phase == "running")
    yield _one("status_age_seconds", "gauge", "Age of the supervisor's last status", age_seconds)


def _actors(status: Status) -> Iterator[Metric]:
    for name, kind, text in _PER_ACTOR:
        metric = Metric(PREFIX + name, text, kind)
        suffix = "_total" if kind == "counter" else ""
        for child in status.children:
            metric.add_sample(metric.name + suffix, {"actor": child.name}, _figure(child, name))
        yield metric


def _figure(child: ChildStatus, name: str) -> float:
    match name:
        case "actor_up":
            return float(child.state == "ready")
        case "actor_restarts":
            return child.restarts
        case "actor_handled":
            return child.handled
        case "actor_backlog":
            return child.backlog
        case "actor_memory_bytes":
            return child.memory_bytes
        case _:
            return child.silent_seconds or 0.0


def _merged(status: Status) -> Iterator[Metric]:
    """One metric for each name, with the samples of all actors that have it."""
    merged: dict[str, Metric] = {}
    for child in status.children:
        for family in child.metrics.families:
            metric = merged.get(family.name)
            if metric is None:
                metric = merged[family.name] = _metric_of(family)
            _add(metric, family, child.name)
    yield from merged.values()


def _metric_of(family: Family) -> Metric:
    kind = "gauge"
    if isinstance(family, CounterFamily):
        kind = "counter"
    elif isinstance(family, HistogramFamily):
        kind = "histogram"
    return Metric(PREFIX + family.name.removesuffix("_total"), family.help or family.name, kind)


def _add(metric: Metric, family: Family, actor: str) -> None:
    if not isinstance(family, HistogramFamily):
        suffix = "_total" if isinstance(family, CounterFamily) else ""
        for number in family.samples:
            labels = {**dict(number.labels), "actor": actor}
            metric.add_sample(metric.name + suffix, labels, number.value)
        return
    for sample in family.samples:
        labels = {**dict(sample.labels), "actor": actor}
        below = 0
        for bound, count in zip((*map(repr, sample.bounds), "+Inf"), sample.counts, strict=True):
            below += count
            metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, below)
        metric.add_sample(f"{metric.name}_count", labels, below)
        metric.add_sample(f"{metric.name}_sum", labels, sample.total)
