"""Ingest between a real relay, a real database, and shards in processes of their own."""

import time
from pathlib import Path

import pytest

from actors.store.fence import Fence
from bench.relay_faults import Fault
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from engine.sharding import shard_of
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


def test_a_capture_goes_to_the_shards_of_its_dids_in_order_and_ends_the_run(
    database: str, tmp_path: Path, recorded: Path, stream: list[bytes]
) -> None:
    with stage(database, tmp_path, shards=2) as on:
        on.start(str(recorded), until_caught_up=True)
        report = on.finished()
        assert report["checkpoint"] == 1000 + COUNT - 1 == on.saved()
        assert report["drops"] == {}
        assert on.metrics().value("ingest_events_total") in (0, COUNT)
        for index in range(2):
            expected = [s for s in numbers(stream) if shard_of(f"did:plc:{s % 7}", 2) == index]
            assert on.taken(index) == expected
        assert on.drain() == 0


def test_a_relay_is_read_on_through_every_kind_of_break(
    database: str, tmp_path: Path, recorded: Path, stream: list[bytes]
) -> None:
    faults = (
        Fault("close", at=50),
        Fault("reset", at=100),
        Fault("mid_frame", at=150),
        Fault("refuse", at=200, seconds=0.1),
        Fault("broken_cbor", at=250),
        Fault("text", at=300),
        Fault("unknown_t", at=350),
        Fault("unknown_op", at=350),
    )
    options = RelayOptions(faults=faults, refuse_first=2)
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", until_caught_up=True)
        report = on.finished()
        assert sorted(on.taken()) == numbers(stream)
        assert report["checkpoint"] == 1000 + COUNT - 1
        assert report["drops"] == {}
        counters = relay.counters()
        assert set(counters.fired) == {fault.kind for fault in faults}
        assert counters.connections >= 6
        assert counters.refused == 2


def test_bytes_that_cannot_be_read_three_times_in_a_row_are_stepped_over(
    database: str, tmp_path: Path, stream: list[bytes]
) -> None:
    one, other = b"\xa2bop\x01at", b"\xff\xff"
    recorded = write(tmp_path / "bad.frames", [*stream[:20], one, other, *stream[20:], one])
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", until_caught_up=True)
        report = on.finished()
        assert sorted(on.taken()) == numbers(stream)
        assert report["drops"] == {"bad_cbor": 3}
        # Two end by the first; on the third nothing that cannot be read is a reason to leave.
        assert relay.counters().connections == 3


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_frame_over_the_limit_three_times_in_a_row_is_stepped_over(
    database: str, tmp_path: Path, stream: list[bytes], inclusive: bool
) -> None:
    stream[30:31] = events(1030, 1, time=time.time(), size=200_000)
    recorded = write(tmp_path / "large.frames", stream)
    options = RelayOptions(inclusive=inclusive)
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", until_caught_up=True, ingest__max_frame_bytes=100_000)
        report = on.finished()
        assert sorted(on.taken()) == [seq for seq in numbers(stream) if seq != 1030]
        assert report["drops"] == {"unreceivable": 1}
        assert relay.counters().cursors[:3] == [0, 1029, 1029]


@pytest.mark.parametrize("inclusive", [True, False])
def test_each_of_several_frames_over_the_limit_is_counted(
    database: str, tmp_path: Path, stream: list[bytes], inclusive: bool
) -> None:
    stream[30:33] = events(1030, 3, time=time.time(), size=200_000)
    recorded = write(tmp_path / "large.frames", stream)
    options = RelayOptions(inclusive=inclusive)
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", until_caught_up=True, ingest__max_frame_bytes=100_000)
        report = on.finished()
        assert sorted(on.taken()) == [seq for seq in numbers(stream) if not 1030 <= seq < 1033]
        assert report["drops"] == {"unreceivable": 3}


def test_numbers_that_go_back_on_one_connection_are_counted(
    database: str, tmp_path: Path, stream: list[bytes]
) -> None:
    ahead = events(2**52, 1, time=time.time())
    recorded = write(tmp_path / "ahead.frames", [*stream[:20], *ahead, *ahead, *stream[20:30]])
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", until_caught_up=True)
        report = on.finished()
        assert sorted(on.taken()) == [*numbers(stream[:20]), 2**52]
        # What has the number of the last one has come before.
        assert report["drops"] == {"out_of_order": 10}


def test_the_checkpoint_never_leads_what_shards_have_acknowledged(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.hold()
        on.start(relay.url, start="oldest")
        on.until_taken(COUNT)
        on.until_saved(999)  # that of before the first event
        on.release()
        on.until_saved(1000 + COUNT - 1)


def test_a_slow_shard_slows_the_relay_and_the_window_keeps_its_bounds(
    database: str, tmp_path: Path
) -> None:
    large = events(1, 3000, time=time.time(), dids=1, size=20_000)
    recorded = write(tmp_path / "large.frames", large)
    options = RelayOptions(send_buffer=65536)
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.hold()
        on.start(
            relay.url,
            start="oldest",
            ingest__window_frames=100,
            ingest__batch_frames=10,
            ingest__queue_frames=50,
        )
        on.until_taken(100)
        before = -1
        while (now := relay.counters().frames) != before:  # until nothing moves any more
            before = now
            on.harness.until(lambda: on.metrics().value("ingest_window_frames", shard=full) == 100)
            time.sleep(0.3)
        assert now < 1500
        assert len(on.taken()) == 100
        on.release()
        on.until_saved(3000)
        assert on.taken(shard_of("did:plc:0", 2)) == list(range(1, 3001))
        on.harness.until(
            lambda: (
                on.metrics().value("ingest_backpressure_seconds_total") > 0
                and on.metrics().value("ingest_window_frames", shard=full) == 0
            )
        )


full = f"shard-{shard_of('did:plc:0', 2)}"


def test_an_edge_that_is_narrower_than_the_window_only_slows(
    database: str, tmp_path: Path, recorded: Path, stream: list[bytes]
) -> None:
    with stage(database, tmp_path, messages=2, bytes=6_000_000) as on:
        on.start(str(recorded), until_caught_up=True, ingest__batch_frames=3)
        assert on.finished()["drops"] == {}
        assert sorted(on.taken()) == numbers(stream)


def test_a_drain_saves_what_is_durable_and_the_next_run_goes_on_from_there(
    database: str, tmp_path: Path, recorded: Path, stream: list[bytes]
) -> None:
    with (
        relay_process(recorded, RelayOptions(faults=(Fault("stall", at=100),))) as relay,
        stage(database, tmp_path) as on,
    ):
        on.start(relay.url, start="oldest")
        on.until_taken(100)
        assert on.drain() == 0
        assert on.saved() == 1099
        on.start(relay.url, start="oldest", until_caught_up=True)
        on.finished()
        assert sorted(on.taken()) == numbers(stream)
        assert relay.counters().cursors == [0, 1099]


def test_a_killed_ingest_goes_on_from_the_checkpoint(
    database: str, tmp_path: Path, recorded: Path, stream: list[bytes]
) -> None:
    faults = (Fault("stall", at=200),)
    with (
        relay_process(recorded, RelayOptions(faults=faults)) as relay,
        stage(database, tmp_path) as on,
    ):
        on.start(relay.url, start="oldest", explicit=True, until_caught_up=True)
        on.until_saved(1199)
        on.harness.kill("ingest")
        on.harness.restart("ingest")
        on.finished()
        assert sorted(on.taken()) == numbers(stream)


def test_silence_is_answered_by_a_new_connection(
    database: str,
    tmp_path: Path,
    recorded: Path,
    stream: list[bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = RelayOptions(faults=(Fault("stall", at=200),))
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest", ingest__stall_seconds=0.4)
        on.until_saved(1000 + COUNT - 1)
        assert sorted(on.taken()) == numbers(stream)
    assert "nothing came for 0.4 s" in capfd.readouterr().err


def test_a_relay_that_is_not_there_is_one_line_and_tried_again(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with relay_process() as relay:
        url = relay.url
    with stage(database, tmp_path) as on:
        on.start(url)
        on.harness.until(
            lambda: on.metrics().value("ingest_disconnects_total", how="unreachable") > 1
        )
    told = capfd.readouterr().err
    assert f"cannot reach {url}/xrpc/com.atproto.sync.subscribeRepos: connection refused" in told
    assert "trying again in" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("future_error", [True, False])
def test_a_host_that_numbers_anew_is_read_on_by_time(
    database: str, tmp_path: Path, future_error: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    first = write(tmp_path / "first.frames", events(10**9, 50, time=now - 7200))
    again = write(tmp_path / "again.frames", events(1, 50, time=now - 100))
    with relay_process(first) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(10**9 + 49)
        port = int(relay.url.rpartition(":")[2])
        relay.refuse()
        relay.disconnect()
        with relay_process(again, RelayOptions(future_error=future_error), port) as renewed:
            if not future_error:
                # It has a place in the stream by then; an open connection may have none yet.
                on.harness.until(lambda: renewed.counters().cursors != [])
                renewed.publish(events(51, 20, time=now))
            on.until_saved(50 if future_error else 70)
    assert "numbers its events anew" in capfd.readouterr().err


def test_a_database_that_goes_away_for_a_moment_only_delays_the_checkpoint(
    database: str, tmp_path: Path, recorded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(1000 + COUNT - 1)
        on.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'ingest'"
        )
        relay.publish(events(9000, 10, time=time.time()))
        on.until_saved(9009)
        assert on.harness.generations["ingest"] == 1
    told = capfd.readouterr().err
    assert told.count("cannot be saved") == 1


def test_a_replaced_generation_ends_the_run(database: str, tmp_path: Path, recorded: Path) -> None:
    with relay_process(recorded) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(1000 + COUNT - 1)
        Fence("ingest", 7, 99).claim(on.connection)
        relay.publish(events(9000, 10, time=time.time()))
        assert on.failed().exit_code == 75
        assert on.saved() == 1000 + COUNT - 1
        assert on.drain() == 0


def test_a_replaced_run_is_told_apart_from_a_fault(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    with stage(database, tmp_path) as on:
        on.connection.execute("UPDATE engine_epoch SET epoch = 8")
        on.start(str(recorded), start="oldest")
        said = on.failed()
    assert (said.exit_code, "replaced" in said.message) == (75, True)


def test_caught_up_waits_for_the_outbox(database: str, tmp_path: Path, recorded: Path) -> None:
    with stage(database, tmp_path) as on:
        on.connection.execute("INSERT INTO engine_outbox (receiver, body) VALUES ('x', '')")
        on.start(str(recorded), until_caught_up=True)
        on.until_saved(1000 + COUNT - 1)
        beats = len(on.harness.said) + 6
        on.harness.until(
            lambda: len(on.harness.said) >= beats or bool(on.harness.reports("ingest"))
        )
        assert on.harness.reports("ingest") == []
        on.connection.execute("DELETE FROM engine_outbox")
        assert on.finished()["checkpoint"] == 1000 + COUNT - 1


def test_a_damaged_capture_gives_what_it_holds_and_ends_the_run(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    recorded.write_bytes(recorded.read_bytes()[:-10])
    with stage(database, tmp_path) as on:
        on.start(str(recorded), until_caught_up=True)
        said = on.failed()
        assert said.exit_code == 65
        assert str(recorded) in said.message
        assert on.drain() == 0
        assert on.saved() == 1000 + COUNT - 2


def test_a_disk_that_is_nearly_full_pauses_the_intake(
    database: str, tmp_path: Path, recorded: Path
) -> None:
    with stage(database, tmp_path) as on:
        on.start(
            str(recorded),
            disk=tmp_path,
            embedded__warn_free_bytes=1 << 49,
            embedded__min_free_bytes=1 << 49,
        )
        on.harness.until(lambda: on.metrics().value("ingest_paused") == 1)
        assert on.taken() == []
        assert on.drain() == 0
