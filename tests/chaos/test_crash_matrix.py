"""SIGKILL at every crash point, and at random times: the tables end as if nothing had happened."""

import os
import random
import signal
from pathlib import Path

import psutil
import pytest

from actors.capture import DEMO, read
from actors.store.standing import standing_database
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from engine.crashpoint import parse
from tests import tables
from tests.postgres_server import SmallServer, short_folder
from tests.program import program, wait_until
from tests.reference import Reference

# Every crash point of the program, the actor that passes it, and at which pass it fires: early, and
# once more in the middle of the stream, by the generation that came after.
CRASH_POINTS = [
    f"{name}@{actor}:1,{name}@{actor}:3"
    for name, actor in (
        ("shard.decoded", "shard-0"),
        ("shard.before_write", "shard-1"),
        ("shard.before_commit", "shard-0"),
        ("shard.after_commit", "shard-1"),
        ("shard.before_ack", "shard-0"),
        ("shard.after_ack", "shard-1"),
        ("user_gate.created", "user_gate"),
        ("ingest.after_save", "ingest"),
    )
] + [
    # How often these are passed depends on how much comes at once.
    *(f"pending.{name}@pending:{nth}" for name in ("sent", "settled") for nth in (1, 3)),
    # Passed when posts are judged again, accounts purged, notifications made: less often.
    "shard.before_settled@shard-0:1",
    "shard.after_settled@shard-1:1",
    "shard.before_purged@shard-0:1",
    "shard.after_purged@shard-1:1",
    "notifier.before_commit@notifier:1",
    "notifier.after_commit@notifier:2",
]
# Points of actors that are not in this run, or of work too large for it, which have tests of
# their own (of the fetcher, the resolver, the label client, of personal indexes, of events that
# wait, and of large removals by the notifier).
ELSEWHERE = (
    *("fetcher.", "label_client.", "personal.", "resolver.", "slice", "written", "expired"),
    *("shard.parking", "shard.drained"),
)
# Small batches and frequent saves, so that every point is passed many times.
SMALL_STEPS = {
    "SKYSHARD_SHARD__BATCH_COMMITS": "50",
    "SKYSHARD_INGEST__BATCH_FRAMES": "16",
    "SKYSHARD_INGEST__WINDOW_FRAMES": "200",
    "SKYSHARD_INGEST__CHECKPOINT_SECONDS": "0.05",
    "SKYSHARD_SUPERVISOR__INTENSITY": "100",
    "SKYSHARD_USER_GATE__BATCH_USERS": "10",
}


@pytest.fixture(scope="module")
def expected() -> tables.Tables:
    """The tables of the bundled capture, by the reference indexer."""
    reference = Reference()
    for frame in read(DEMO):
        reference.frame(frame)
    return reference.tables()


def test_the_matrix_names_every_crash_point_of_the_actors() -> None:
    actors = Path(__file__).parent.parent.parent / "actors"
    named = {point.partition("@")[0] for point in CRASH_POINTS}
    for path in actors.rglob("*.py"):
        for line in path.read_text().splitlines():
            if 'crash_point("' in line:
                point = line.partition('crash_point("')[2].partition('"')[0]
                if point.startswith(ELSEWHERE):
                    continue
                known = {point, f"shard.{point}"}
                assert known & named, f"{path.name} passes {point}, which nothing crashes at"


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_crash_at_any_point_changes_nothing_in_the_end(
    database: str, expected: tables.Tables, tmp_path: Path, point: str
) -> None:
    records = tmp_path / "crashes"
    records.mkdir()
    environment = {
        **SMALL_STEPS,
        "SKYSHARD_CRASH_POINTS": point,
        "SKYSHARD_CRASH_DIR": str(records),
    }
    with (
        relay_process(DEMO, RelayOptions(replay_rate=4000)) as relay,
        program(
            tmp_path,
            *("--json", "--until-caught-up", "--from-start", "--shards", "2"),
            *("--source", relay.url, "--database-url", database),
            environment=environment,
        ) as running,
    ):
        report = running.report()
    points = parse(point)
    assert {path.name for path in records.iterdir()} == {each.record for each in points}
    restarts = {name: times for name, times in report["restarts"].items() if times}
    assert restarts == {points[0].actor: len(points)}
    assert tables.differences(expected, tables.read_tables(database)) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_actors_killed_at_random_times_change_nothing_in_the_end(
    database: str, expected: tables.Tables, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    victims = ["shard-0", "shard-1", "user_gate", "ingest", "monitor"]
    with (
        relay_process(DEMO, RelayOptions(replay_rate=1000)) as relay,
        program(
            tmp_path,
            *("--json", "--until-caught-up", "--from-start", "--shards", "2"),
            *("--source", relay.url, "--database-url", database),
            environment=SMALL_STEPS,
        ) as running,
    ):
        killed = 0
        for count in sorted(chance.sample(range(200, 3600), 6)):
            wait_until(
                lambda count=count: relay.counters().frames >= count,  # type: ignore[misc]  # a default binds the loop's value
                f"{count} frames to be sent",
                running,
            )
            running.kill(chance.choice(victims))
            killed += 1
        report = running.report()
    assert sum(report["restarts"].values()) == killed
    assert tables.differences(expected, tables.read_tables(database)) == []


def test_a_killed_supervisor_leaves_nothing_running_and_the_next_start_takes_over(
    database: str, expected: tables.Tables, tmp_path: Path
) -> None:
    with relay_process(DEMO, RelayOptions(replay_rate=2000)) as relay:
        arguments = (
            *("--json", "--until-caught-up", "--from-start", "--shards", "2"),
            *("--source", relay.url, "--database-url", database),
        )
        with program(tmp_path, *arguments, environment=SMALL_STEPS) as running:
            wait_until(lambda: relay.counters().frames >= 1500, "half of the capture", running)
            children = running.processes()
            assert {"shard-0", "shard-1", "ingest", "user_gate"} <= set(children)
            os.kill(running.child.pid, signal.SIGKILL)
            running.wait()
            wait_until(
                lambda: not any(psutil.pid_exists(pid) for pid in children.values()),
                "every child to end by itself",
                running,
            )
        with program(tmp_path, *arguments[:2], *arguments[3:], name="next") as running:
            running.report()
            assert running.said("taking over")
    assert tables.differences(expected, tables.read_tables(database)) == []


def test_a_killed_postgres_is_restarted_and_the_other_actors_go_on(
    expected: tables.Tables, tmp_path: Path
) -> None:
    with short_folder() as folder, relay_process(DEMO, RelayOptions(replay_rate=800)) as relay:
        data = folder / "data"
        with program(
            tmp_path,
            *("--until-caught-up", "--from-start", "--shards", "2", "--json"),
            *("--source", relay.url, "--data-dir", str(data)),
            environment=SMALL_STEPS,
        ) as running:
            wait_until(lambda: relay.counters().frames >= 1000, "a part of the capture", running)
            before = running.processes()
            postmaster = int((data / "postgres/data/postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGKILL)
            wait_until(lambda: running.said("PostgreSQL is back"), "the shards to go on", running)
            after = running.processes()
            report = running.report()
        with standing_database(
            "", data, folder / "run", SmallServer(), connect_seconds=30
        ) as conninfo:
            assert tables.differences(expected, tables.read_tables(conninfo)) == []
    actors = ("shard-0", "shard-1", "ingest", "user_gate")
    assert {name: before[name] for name in actors} == {name: after[name] for name in actors}
    assert {name for name, times in report["restarts"].items() if times} == {"postgres"}
