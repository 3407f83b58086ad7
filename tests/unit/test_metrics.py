"""The registry of metrics and the snapshot that leaves the process."""

import msgspec
import pytest

from engine.metrics import HistogramFamily, Metrics, MetricsSnapshot


def test_the_same_name_and_labels_are_the_same_metric() -> None:
    metrics = Metrics()
    metrics.counter("drops", reason="bad_cid", lane="live").add()
    metrics.counter("drops", lane="live", reason="bad_cid").add(2)
    metrics.counter("drops", reason="too_big", lane="live").add()
    snapshot = metrics.snapshot()
    assert snapshot.value("drops", reason="bad_cid", lane="live") == 3
    assert snapshot.value("drops", reason="too_big", lane="live") == 1


def test_what_was_never_counted_reads_as_zero() -> None:
    assert Metrics().snapshot().value("nothing") == 0.0


def test_a_name_keeps_its_kind() -> None:
    metrics = Metrics()
    metrics.counter("events")
    with pytest.raises(ValueError, match="'events' is a Counter, not a Gauge"):
        metrics.gauge("events")


def test_a_histogram_keeps_its_buckets() -> None:
    metrics = Metrics()
    metrics.histogram("seconds", buckets=(1, 2))
    with pytest.raises(ValueError, match="other buckets"):
        metrics.histogram("seconds", buckets=(1, 3))


@pytest.mark.parametrize("bounds", [(), (2, 1), (1, 1)])
def test_buckets_that_do_not_ascend_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        Metrics().histogram("seconds", buckets=bounds)


def test_an_observation_falls_into_the_first_bucket_that_is_not_below_it() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("seconds", buckets=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    (family,) = metrics.snapshot().families
    assert isinstance(family, HistogramFamily)
    assert family.samples[0].counts == (2, 2, 1)
    assert family.samples[0].total == 14.0
    assert histogram.count == 5


def test_gauges_may_be_set_when_the_snapshot_is_taken() -> None:
    metrics = Metrics()
    depth = metrics.gauge("depth", "Messages waiting.")
    metrics.before_snapshot(lambda: depth.set(7))
    assert metrics.snapshot().value("depth") == 7


def test_a_snapshot_survives_both_encodings() -> None:
    metrics = Metrics()
    metrics.counter("a", "A counter.", kind="x").add()
    metrics.gauge("b", "A gauge.").set(-1.5)
    metrics.histogram("c", "A histogram.").observe(0.3)
    snapshot = metrics.snapshot()
    packed = msgspec.msgpack.encode(snapshot)
    assert msgspec.msgpack.decode(packed, type=MetricsSnapshot) == snapshot
    text = msgspec.json.encode(snapshot)
    assert msgspec.json.decode(text, type=MetricsSnapshot) == snapshot
