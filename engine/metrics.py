"""A small registry of counters, gauges and histograms, and the snapshot that leaves the process.

An increment is an addition to an attribute: no lock, no dictionary, as each registry belongs to one
actor and its loop. Ask the registry for a metric once, keep it, and add to it in the hot path.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

Labels = tuple[tuple[str, str], ...]

SECONDS: tuple[float, ...] = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNTS: tuple[float, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        self.value += amount


class Gauge:
    """A number that is set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        self.value = value

    def add(self, amount: float) -> None:
        self.value += amount


class Histogram:
    """How many observations fell at or below each bound, their sum and their number."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        if list(bounds) != sorted(set(bounds)) or not bounds:
            raise ValueError(f"histogram bounds must ascend and not be empty: {bounds!r}")
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class NumberSample(msgspec.Struct, frozen=True, array_like=True):
    """The value of one counter or gauge under one set of labels."""

    labels: Labels
    value: float


class HistogramSample(msgspec.Struct, frozen=True, array_like=True):
    """One histogram under one set of labels; the last of `counts` is above all `bounds`."""

    labels: Labels
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class CounterFamily(msgspec.Struct, frozen=True, tag="counter"):
    name: str
    help: str
    samples: tuple[NumberSample, ...]


class GaugeFamily(msgspec.Struct, frozen=True, tag="gauge"):
    name: str
    help: str
    samples: tuple[NumberSample, ...]


class HistogramFamily(msgspec.Struct, frozen=True, tag="histogram"):
    name: str
    help: str
    samples: tuple[HistogramSample, ...]


Family = CounterFamily | GaugeFamily | HistogramFamily


class MetricsSnapshot(msgspec.Struct, frozen=True):
    """Everything a registry held at one moment; encodes as msgpack and as JSON."""

    families: tuple[Family, ...] = ()

    def value(self, name: str, **labels: str) -> float:
        """The value of one counter or gauge, 0.0 where there is none (yet)."""
        wanted = tuple(sorted(labels.items()))
        for family in self.families:
            if family.name == name and not isinstance(family, HistogramFamily):
                for sample in family.samples:
                    if sample.labels == wanted:
                        return sample.value
        return 0.0


Metric = Counter | Gauge | Histogram
MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of one process.

    A name always means one kind of metric with one help text; asking for it again with the same
    labels gives the same object. Raises ValueError when a name changes its kind or its buckets.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, dict[Labels, Metric]] = {}
        self._kinds: dict[str, type[Metric]] = {}
        self._helps: dict[str, str] = {}
        self._before_snapshot: list[Callable[[], None]] = []

    def counter(self, name: str, help: str = "", **labels: str) -> Counter:  # noqa: A002 - the word of the Prometheus format
        return self._get(name, help, labels, Counter, Counter)

    def gauge(self, name: str, help: str = "", **labels: str) -> Gauge:  # noqa: A002 - the word of the Prometheus format
        return self._get(name, help, labels, Gauge, Gauge)

    def histogram(
        self,
        name: str,
        help: str = "",  # noqa: A002 - the word of the Prometheus format
        *,
        buckets: Sequence[float] = SECONDS,
        **labels: str,
    ) -> Histogram:
        made = self._get(name, help, labels, Histogram, lambda: Histogram(buckets))
        if made.bounds != tuple(buckets):
            raise ValueError(f"metric {name!r} already has other buckets: {made.bounds}")
        return made

    def before_snapshot(self, callback: Callable[[], None]) -> None:
        """Have `callback` set the gauges that are cheaper to read now and then than to keep."""
        self._before_snapshot.append(callback)

    def snapshot(self) -> MetricsSnapshot:
        for callback in self._before_snapshot:
            callback()
        return MetricsSnapshot(tuple(self._family(name) for name in self._metrics))

    def _get(
        self,
        name: str,
        help_text: str,
        labels: dict[str, str],
        kind: type[MetricT],
        make: Callable[[], MetricT],
    ) -> MetricT:
        known = self._kinds.setdefault(name, kind)
        if known is not kind:
            raise ValueError(f"metric {name!r} is a {known.__name__}, not a {kind.__name__}")
        if help_text:
            self._helps.setdefault(name, help_text)
        by_labels = self._metrics.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        metric = by_labels.get(key)
        if metric is None:
            made = make()
            by_labels[key] = made
            return made
        assert isinstance(metric, kind)
        return metric

    def _family(self, name: str) -> Family:
        items: Iterable[tuple[Labels, Metric]] = self._metrics[name].items()
        help_text = self._helps.get(name, "")
        if self._kinds[name] is Histogram:
            return HistogramFamily(
                name,
                help_text,
                tuple(
                    HistogramSample(labels, metric.bounds, tuple(metric.counts), metric.total)
                    for labels, metric in items
                    if isinstance(metric, Histogram)
                ),
            )
        samples = tuple(
            NumberSample(labels, metric.value)
            for labels, metric in items
            if not isinstance(metric, Histogram)
        )
        family = CounterFamily if self._kinds[name] is Counter else GaugeFamily
        return family(name, help_text, samples)
