"""The lag that ingest tells while it reads."""

import time
from pathlib import Path

from actors import vitals
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from engine.control import Progress
from tests.unit.ingest_stage import Stage, events, stage, write

DAY = 86_400.0


def lags(on: Stage) -> list[float]:
    """Every lag told so far."""
    said = [m.metrics for m in on.harness.of("ingest", Progress) if isinstance(m, Progress)]
    return [metrics.value(vitals.LAG) for metrics in said if metrics is not None]


def test_while_an_old_stream_is_read_slowly_the_index_is_never_said_to_be_up_to_date(
    database: str, tmp_path: Path
) -> None:
    recorded = write(tmp_path / "old.frames", events(1000, 60, time=time.time() - DAY))
    options = RelayOptions(replay_rate=20)
    with relay_process(recorded, options) as relay, stage(database, tmp_path) as on:
        on.start(relay.url, start="oldest")
        on.until_saved(1059)
        beats = len(lags(on)) + 2
        on.harness.until(lambda: len(lags(on)) >= beats)
        known = [lag for lag in lags(on) if lag != vitals.UNKNOWN_LAG]
        assert len(known) > 3
        assert min(known) > DAY - 60


def test_a_stream_that_goes_on_after_a_checkpoint_is_behind_until_its_source_has_no_more(
    database: str, tmp_path: Path
) -> None:
    recorded = write(tmp_path / "old.frames", events(1000, 60, time=time.time() - DAY))
    with relay_process(recorded, RelayOptions(inclusive=False)) as relay:
        with stage(database, tmp_path) as on:
            on.start(relay.url, start="oldest", until_caught_up=True)
            on.finished()
            assert on.drain() == 0
        relay.refuse()
        with stage(database, tmp_path) as on:
            on.start(relay.url)
            on.harness.until(lambda: any(lag > DAY - 60 for lag in lags(on)))
            relay.listen()
            on.harness.until(lambda: lags(on)[-1] == 0.0)
