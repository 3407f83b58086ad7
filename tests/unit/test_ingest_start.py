"""Where ingest begins in a stream, and what it makes of a start that its source does not have."""

import time
from pathlib import Path

import pytest

from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from tests.unit.ingest_stage import events, stage, write


@pytest.mark.parametrize("checkpoint", [None, 1050])
def test_a_cursor_that_the_source_has_not_reached_is_said_and_left(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], checkpoint: int | None
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 119, time=time.time() - 60))
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        if checkpoint is not None:
            on.connection.execute(
                "INSERT INTO firehose_cursor (service, cursor) VALUES (%s, %s)",
                [relay.url.removeprefix("ws://"), str(checkpoint)],
            )
        on.start(relay.url, start="999999", explicit=True)
        on.harness.until(lambda: relay.counters().cursors == [999998])
        assert on.saved() == checkpoint
        relay.publish(events(1119, 10, time=time.time()))
        on.until_saved(1128)
        assert sorted(on.taken()) == list(range(1119, 1129))
        assert on.drain() == 0
    told = capfd.readouterr().err
    assert "is at event 1119, before the cursor 999999 that was asked for: going on at" in told


def test_a_cursor_that_the_source_refuses_as_of_the_future_is_said_and_left(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 119, time=time.time() - 60))
    options = RelayOptions(future_error=True)
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="999999")
        on.until_saved(1118)
        assert sorted(on.taken()) == list(range(1000, 1119))
    told = capfd.readouterr().err
    assert "is not at the cursor 999999 yet that was asked for" in told
    assert "anew" not in told


def test_a_cursor_that_nothing_came_after_is_not_saved(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 119, time=time.time() - 60))
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="999999", until_caught_up=True)
        assert on.finished()["checkpoint"] == 0
        assert on.drain() == 0
        assert on.saved() is None
    assert "sent nothing from the cursor 999999 on" in capfd.readouterr().err


def test_a_checkpoint_without_a_time_that_the_source_has_not_reached_is_left(
    database: str, tmp_path: Path
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 119, time=time.time() - 60))
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.connection.execute(
            "INSERT INTO firehose_cursor (service, cursor) VALUES (%s, '5000')",
            [relay.url.removeprefix("ws://")],
        )
        on.start(relay.url)
        on.harness.until(lambda: relay.counters().cursors == [5000])
        relay.publish(events(1119, 10, time=time.time()))
        on.until_saved(1128)
        assert sorted(on.taken()) == list(range(1119, 1129))


@pytest.mark.parametrize("start", ["1050", "1119"])
def test_a_cursor_that_the_source_has_is_no_mistake(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], start: str
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 119, time=time.time() - 60))
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start=start)
        on.harness.until(lambda: relay.counters().cursors == [int(start) - 1])
        relay.publish(events(1119, 10, time=time.time()))
        on.until_saved(1128)
        assert sorted(on.taken()) == list(range(int(start), 1129))
    assert "asked for" not in capfd.readouterr().err


def test_a_generation_that_died_before_it_saved_leaves_the_start_to_the_next(
    database: str, tmp_path: Path
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 100, time=time.time() - 60))
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.connection.execute(
            "INSERT INTO firehose_cursor (service, cursor, updated_at)"
            " VALUES (%s, '1080', now() - interval '1 hour')",
            [relay.url.removeprefix("ws://")],
        )
        on.hold()
        on.start(relay.url, start="1050", explicit=True, ingest__checkpoint_seconds=0.02)
        on.until_taken(50)
        assert on.saved() == 1080
        on.harness.kill("ingest")
        on.release()
        on.harness.restart("ingest")
        on.until_saved(1099)
        assert set(on.taken()) == set(range(1050, 1100))
        assert relay.counters().cursors == [1049, 1049]


@pytest.mark.parametrize("start", ["1100", "5000"])
def test_a_capture_that_ends_before_the_cursor_ends_the_run(
    database: str, tmp_path: Path, start: str
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 100, time=time.time() - 60))
    with stage(database, tmp_path) as on:
        on.start(str(recorded), start=start, until_caught_up=True)
        said = on.failed()
        assert said.exit_code == 65
        assert f"{recorded} ends at event 1099, before the cursor {start}:" in said.message
        assert on.drain() == 0
        assert on.saved() is None


def test_a_capture_that_is_shorter_than_the_checkpoint_ends_the_run(
    database: str, tmp_path: Path
) -> None:
    recorded = write(tmp_path / "recorded.frames", events(1000, 100, time=time.time() - 60))
    with stage(database, tmp_path) as on:
        on.start(str(recorded), until_caught_up=True)
        assert on.finished()["checkpoint"] == 1099
        assert on.drain() == 0
        on.harness.said.clear()
        on.start(str(recorded), until_caught_up=True)
        assert on.finished()["checkpoint"] == 1099
        assert on.drain() == 0
        write(recorded, [])
        on.start(str(recorded), until_caught_up=True)
        said = on.failed()
        assert said.exit_code == 65
        assert "holds no event, before the cursor 1099:" in said.message
        assert on.saved() == 1099
