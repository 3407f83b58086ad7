"""What ingest says when its source leaves out numbers."""

import time
from pathlib import Path

import pytest

from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from tests.unit.ingest_stage import events, stage, write

NOT_SENT = "were not sent"


def test_a_short_gap_after_a_reconnect_is_said_and_is_no_loss(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    first = write(tmp_path / "first.frames", events(1, 310, time=now - 40))
    later = write(tmp_path / "later.frames", events(2001, 10, time=now - 40 + 0.309 + 20))
    with relay_process(first) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(310)
        relay.refuse()
        relay.disconnect()
        with relay_process(later, port=int(relay.url.rpartition(":")[2])):
            on.until_saved(2010)
        assert on.harness.metrics_now("ingest").value("ingest_gaps_total") == 0
    told = capfd.readouterr().err
    assert told.count(NOT_SENT) == 1
    assert "events 311 to 2000 were not sent (20 s); a source may skip numbers" in told


def test_a_cursor_before_the_oldest_event_is_said(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 10, time=time.time()))
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="500")
        on.until_saved(1009)
    assert "events 500 to 999 were not sent; a source may skip" in capfd.readouterr().err


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_reconnect_that_misses_nothing_says_nothing(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], inclusive: bool
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 10, time=time.time()))
    with (
        relay_process(recorded, RelayOptions(inclusive=inclusive)) as relay,
        stage(database, tmp_path) as on,
    ):
        on.start(relay.url, start="oldest")
        on.until_saved(1009)
        relay.disconnect()
        on.harness.until(lambda: relay.counters().cursors == [0, 1009])
        relay.publish(events(1010, 10, time=time.time()))
        on.until_saved(1019)
    assert NOT_SENT not in capfd.readouterr().err


def test_a_search_by_time_asks_for_no_number_and_misses_none(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    old = [events(10_000 * hour, 1, time=now - 3600 * (100 - hour))[0] for hour in range(1, 100)]
    recorded = write(tmp_path / "old.frames", old)
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="10h", until_caught_up=True)
        on.finished()
        assert sorted(on.taken()) == [10_000 * hour for hour in range(91, 100)]
    assert NOT_SENT not in capfd.readouterr().err


def test_what_is_stepped_over_was_not_left_out_by_the_source(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = events(1000, 20, time=time.time())
    stream[5:6] = events(1005, 1, time=time.time(), size=200_000)
    recorded = write(tmp_path / "large.frames", stream)
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", until_caught_up=True, ingest__max_frame_bytes=100_000)
        assert on.finished()["drops"] == {"unreceivable": 1}
    assert NOT_SENT not in capfd.readouterr().err
