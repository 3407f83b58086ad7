"""How ingest ends: in good order, or with what nobody is left to take."""

import time
from pathlib import Path

import pytest

from bench.relay_process import relay_process
from tests.unit.ingest_stage import Stage, events, stage, write

COUNT = 100


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return write(tmp_path / "recorded.frames", events(1000, COUNT, time=time.time() - 60))


def ended(on: Stage) -> bool:
    row = on.connection.execute("SELECT ended FROM engine_epoch").fetchone()
    assert row is not None
    return bool(row[0])


def test_a_drain_ends_the_run_in_good_order_and_a_later_generation_has_it_go_on(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(1000 + COUNT - 1)
        assert not ended(on)
        assert on.drain() == 0
        assert ended(on)
        on.harness.restart("ingest")
        assert not ended(on)


def test_a_drain_after_all_shards_went_saves_what_is_durable_and_waits_for_nobody(
    database: str, tmp_path: Path, recorded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(1000 + COUNT - 1)
        on.hold()
        relay.publish(events(2000, 50, time=time.time()))
        on.until_taken(COUNT + 50)
        on.harness.kill("shard-0")
        on.harness.kill("shard-1")
        assert on.drain() == 0
        assert on.saved() == 1000 + COUNT - 1
        assert not ended(on)
    assert "no shard is left to take what is not durable yet" in capfd.readouterr().err


def test_a_drain_waits_for_the_shard_that_is_up(
    database: str, tmp_path: Path, recorded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.hold()
        on.start(relay.url, start="oldest")
        on.until_taken(COUNT)
        on.harness.kill("shard-1")
        on.harness.start("shard-1", *on.harness.made["shard-1"])
        on.until_taken(COUNT + len(on.taken(1)) // 2)  # it got its window again
        on.release()
        assert on.drain() == 0
        assert on.saved() == 1000 + COUNT - 1
        assert ended(on)
    assert "no shard is left" not in capfd.readouterr().err


def test_the_wait_that_shows_the_end_of_a_stream_is_no_part_of_the_reported_time(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    idle = 2.0
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        began = time.monotonic()
        on.start(relay.url, start="oldest", until_caught_up=True, source__idle_seconds=idle)
        report = on.finished()
        assert report["seconds"] <= time.monotonic() - began - idle
        assert report["events_per_second"] == pytest.approx(COUNT / report["seconds"], rel=0.1)
