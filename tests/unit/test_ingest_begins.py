"""Where ingest begins with a real relay and database: a checkpoint, a start asked for, a gap."""

import time
from pathlib import Path

import pytest

from bench.relay_process import relay_process
from tests.unit.ingest_stage import events, seq_of, stage, write

COUNT = 400


@pytest.fixture
def stream() -> list[bytes]:
    return events(1000, COUNT, time=time.time() - 60)


@pytest.fixture
def recorded(tmp_path: Path, stream: list[bytes]) -> Path:
    return write(tmp_path / "recorded.frames", stream)


def numbers(stream: list[bytes]) -> list[int]:
    return [seq_of(frame) for frame in stream]


def test_a_start_asked_for_wins_over_the_checkpoint_only_when_it_is_explicit(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    before = 0
    with relay_process(recorded) as relay:
        for start, explicit, taken in (
            ("1300", False, COUNT - 300),
            ("1100", False, 0),
            ("1100", True, COUNT - 100),
        ):
            with stage(database, tmp_path) as on:  # a run of its own, on the same database
                on.start(relay.url, start=start, explicit=explicit, until_caught_up=True)
                assert on.finished()["checkpoint"] == 1000 + COUNT - 1 == on.saved()
                assert len(on.taken()) == before + taken
                before += taken


def test_live_is_what_comes_from_now_on(
    database: str, tmp_path: Path, recorded: Path, stream: list[bytes]
) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="live")
        on.harness.until(lambda: relay.counters().cursors == [None])
        relay.publish(events(5000, 10, time=time.time()))
        on.until_saved(5009)
        assert sorted(on.taken()) == list(range(5000, 5010))


def test_since_starts_at_the_moment_asked_for(database: str, tmp_path: Path) -> None:
    now = time.time()
    old = [events(10_000 + hour, 1, time=now - 3600 * (100 - hour))[0] for hour in range(100)]
    recorded = write(tmp_path / "old.frames", old)
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="10h", explicit=True, until_caught_up=True)
        on.finished()
        assert sorted(on.taken()) == list(range(10_091, 10_100))


def test_a_gap_is_said_loudly_with_its_length(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    first = write(tmp_path / "first.frames", events(1, 50, time=now - 7200))
    with relay_process(first) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(50)
        relay.refuse()
        relay.disconnect()
        port = int(relay.url.rpartition(":")[2])
        later = write(tmp_path / "later.frames", events(1000, 10, time=now))
        relay.refuse()
        with relay_process(later, port=port):
            on.until_saved(1009)
    told = capfd.readouterr().err
    assert "no longer holds what followed event 50" in told
    assert "1h 59m" in told or "2h" in told
    assert "949 events" in told
