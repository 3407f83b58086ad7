"""Children that die, stick, or never start, and what the supervisor makes of it."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.supervised import group, service, soldier, supervised, wait_until

SHARDS = group("shard", "shard-0", "shard-1")


def test_a_killed_child_is_restarted_and_the_others_keep_their_processes(arena: Path) -> None:
    groups = (group("gate"), SHARDS, group("ingest"))
    with supervised(arena, *groups, edges=[("ingest", "shard", "tell")]) as system:
        before = system.wait_ready("gate", "shard-0", "shard-1", "ingest")
        os.kill(before["shard-0"], signal.SIGKILL)
        line = system.wait_for_line("shard-0 died")
        assert line["pid"] == before["shard-0"]
        assert line["generation"] == 1
        assert line["reason"] == "killed by SIGKILL"
        assert "restarting in" in line["event"]
        assert "1 of 5 restarts in 60 s" in line["event"]
        after = system.wait_ready("shard-0", times=2)
        assert after["shard-0"] != before["shard-0"]
        system.signal(signal.SIGTERM)
        outcome = system.outcome()
        assert outcome["code"] == 0
        assert outcome["restarts"] == {"shard-0": 1}
        assert len(system.lines("is ready")) == 5


def test_peers_hear_of_a_death_and_of_the_next_generation_and_others_do_not(arena: Path) -> None:
    groups = (group("gate"), SHARDS, group("ingest"))
    with supervised(arena, *groups, edges=[("ingest", "shard", "tell")]) as system:
        before = system.wait_ready("gate", "shard-0", "shard-1", "ingest")
        system.wait_for_trace("peer ingest shard-0 1 up")
        system.wait_for_trace("peer shard-0 ingest 1 up")
        os.kill(before["shard-0"], signal.SIGKILL)
        system.wait_for_trace("peer ingest shard-0 1 down")
        system.wait_for_trace("peer ingest shard-0 2 up")
        system.wait_for_trace("peer shard-0 ingest 1 up", times=2)
        system.signal(signal.SIGTERM)
        system.outcome()
        assert not [line for line in system.traces if line.startswith("peer gate")]
        assert not [line for line in system.traces if line.startswith("peer shard-1 shard-0")]


def test_an_exception_is_named_in_the_log_and_the_child_restarted(arena: Path) -> None:
    with supervised(arena, group("gate")) as system:
        system.wait_ready("gate")
        system.order("gate", "raise")
        line = system.wait_for_line("gate died")
        assert line["reason"] == "exit code 1: RuntimeError: as ordered"
        system.wait_ready("gate", times=2)


def test_a_child_that_stops_though_nobody_asked_is_restarted_if_permanent(arena: Path) -> None:
    with supervised(arena, group("gate")) as system:
        system.wait_ready("gate")
        system.order("gate", "stop")
        system.wait_for_line("gate stopped by itself")
        system.wait_ready("gate", times=2)


def test_a_transient_child_is_restarted_after_a_crash_but_not_when_done(arena: Path) -> None:
    with supervised(arena, group("job", soldier("job", restart="transient"))) as system:
        system.wait_ready("job")
        system.order("job", "die")
        system.wait_ready("job", times=2)
        system.order("job", "stop")
        system.wait_for_line("job stopped by itself: in good order; not restarted")
        system.signal(signal.SIGTERM)
        assert system.outcome()["restarts"] == {"job": 1}


def test_a_temporary_child_is_never_restarted_and_the_others_go_on(arena: Path) -> None:
    groups = (group("job", soldier("job", restart="temporary")), group("gate"))
    with supervised(arena, *groups) as system:
        system.wait_ready("job", "gate")
        system.order("job", "die")
        system.wait_for_line("job died: killed by SIGKILL; not restarted")
        system.order("gate", "die")
        system.wait_ready("gate", times=2)
        system.signal(signal.SIGTERM)
        assert system.outcome()["restarts"] == {"gate": 1}


def test_more_restarts_than_the_intensity_end_the_run_with_one_clear_line(arena: Path) -> None:
    with supervised(arena, group("gate"), group("shard", intensity=2)) as system:
        system.wait_ready("gate", "shard")
        system.pids()
        for times in (1, 2, 3):
            system.wait_ready("shard", times=times)
            system.order("shard", "raise")
        outcome = system.outcome()
        assert outcome["code"] == outcome["exit_code"] == 70
        assert outcome["stopped_by"] == "gave up"
        assert outcome["restarts"] == {"shard": 2}
        message = (
            "giving up: more than 2 restarts in 60 s in group shard;"
            " shard last died: exit code 1: RuntimeError: as ordered"
        )
        assert outcome["message"] == message
        assert len(system.lines("giving up")) == 1
        system.wait_all_gone()


def test_a_child_whose_start_fails_at_once_ends_the_run(arena: Path) -> None:
    with supervised(arena, group("gate", soldier("gate", "fails_at_start"))) as system:
        outcome = system.outcome()
        assert outcome["code"] == 70
        assert "exit code 1: RuntimeError: no boots" in outcome["message"]
        assert system.traces.count("start gate epoch 0") == 6
        assert not system.lines("is ready")


def test_later_groups_do_not_start_before_earlier_ones_are_ready(arena: Path) -> None:
    groups = (group("gate", soldier("gate", "fails_at_start")), group("ingest"))
    with supervised(arena, *groups) as system:
        assert system.outcome()["code"] == 70
        assert not [line for line in system.traces if "ingest" in line]


def test_a_stuck_child_is_killed_and_restarted_and_the_log_says_so(arena: Path) -> None:
    groups = (group("gate"), group("shard", soldier("shard", stall_seconds=2.5)))
    with supervised(arena, *groups) as system:
        before = system.wait_ready("gate", "shard")
        system.order("shard", "stick")
        killed = system.wait_for_line("shard is killed: stuck: no progress for")
        assert killed["pid"] == before["shard"]
        system.wait_for_line("shard died: stuck: no progress for")
        system.wait_ready("shard", times=2)
        assert "obey shard stick" in system.traces
        assert not system.lines("gate died")


def test_a_child_that_does_not_become_ready_in_time_is_killed(arena: Path) -> None:
    late = soldier("gate", "slow_start", start_seconds=1.5)
    with supervised(arena, group("gate", late, intensity=0)) as system:
        outcome = system.outcome()
        assert outcome["code"] == 70
        assert "gate last died: not ready after" in outcome["message"]


def test_idle_children_are_not_taken_for_stuck_ones(arena: Path) -> None:
    watched = soldier("gate", stall_seconds=2.0, wants_status=True)
    with supervised(arena, group("gate", watched)) as system:
        system.wait_ready("gate")
        system.wait_for_trace("status gate running 1", times=4)
        assert not system.lines("gate is killed")


def test_time_in_which_the_supervisor_was_stopped_is_not_held_against_children(
    arena: Path,
) -> None:
    with supervised(arena, group("gate", soldier("gate", stall_seconds=2.0))) as system:
        stopped = (system.process.pid, system.wait_ready("gate")["gate"])
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        since = time.monotonic()
        # The stop is the fault that is injected here, and must outlast the stall.
        wait_until(lambda: time.monotonic() > since + 3.0, lambda: "time stands still")
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        system.order("gate", "raise")
        assert system.wait_for_line("gate died")["reason"].endswith("as ordered")
        assert not system.lines("gate is killed")


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [
        ("one_for_one", {"b": 1}),
        ("rest_for_one", {"b": 1, "c": 1}),
        ("one_for_all", {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_the_strategy_says_who_is_restarted_together(
    arena: Path, strategy: str, restarted: dict[str, int]
) -> None:
    groups = (group("first"), group("trio", "a", "b", "c", strategy=strategy), group("last"))
    with supervised(arena, *groups) as system:
        system.wait_ready("first", "a", "b", "c", "last")
        system.order("b", "die")
        system.wait_ready(*restarted, times=2)
        system.signal(signal.SIGTERM)
        outcome = system.outcome()
        assert outcome["code"] == 0
        assert outcome["restarts"] == restarted


def test_rest_for_one_brings_the_successors_back_in_order(arena: Path) -> None:
    trio = group("trio", "a", "b", "c", strategy="rest_for_one")
    with supervised(arena, trio) as system:
        system.wait_ready("a", "b", "c")
        system.order("a", "die")
        system.wait_ready("a", "b", "c", times=2)
        starts = [line.split()[1] for line in system.traces if line.startswith("start")]
        assert starts == ["a", "b", "c", "a", "b", "c"]
        stops = [line for line in system.traces if line.startswith("stop")]
        assert sorted(stops) == ["stop b", "stop c"]


def test_a_service_is_restarted_like_a_child_and_the_actors_stay_up(arena: Path) -> None:
    with supervised(arena, service("db"), group("gate"), epoch=9) as system:
        before = system.wait_ready("db", "gate")
        assert "start gate epoch 9" in system.traces
        os.kill(before["db"], signal.SIGKILL)
        assert system.wait_for_line("db died")["reason"] == "killed by SIGKILL"
        system.wait_ready("db", times=2)
        system.signal(signal.SIGTERM)
        assert system.outcome()["restarts"] == {"db": 1}
        assert len(system.lines("gate is ready")) == 1


def test_actors_that_die_while_a_service_is_down_wait_for_it_and_are_not_counted(
    arena: Path,
) -> None:
    with supervised(arena, service("db"), group("gate", intensity=0)) as system:
        before = system.wait_ready("db", "gate")
        (arena / "db.hold").touch()
        os.kill(before["db"], signal.SIGKILL)
        system.wait_for_line("db waits for: held back")
        os.kill(before["gate"], signal.SIGKILL)
        line = system.wait_for_line("gate died")
        assert "not counted, as a service is down" in line["event"]
        assert len(system.lines("gate starts")) == 1
        (arena / "db.hold").unlink()
        system.wait_ready("gate", times=2)
        events = [event["event"] for event in system.events]
        assert events.index("gate starts", events.index("gate starts") + 1) > max(
            at for at, event in enumerate(events) if event == "db is ready"
        )


def test_a_service_that_cannot_work_ends_the_run_with_its_own_words_and_code(
    arena: Path,
) -> None:
    (arena / "db.hopeless").touch()
    with supervised(arena, service("db"), group("gate")) as system:
        outcome = system.outcome()
        assert outcome["code"] == 65
        assert outcome["message"] == "the data folder is of another version"
        assert system.traces == ["closing"]


def test_a_service_that_is_not_ready_in_time_is_killed(arena: Path) -> None:
    (arena / "db.silent").touch()
    database = service("db", intensity=1)
    database["children"][0]["start_seconds"] = 0.5
    with supervised(arena, database) as system:
        outcome = system.outcome()
        assert outcome["code"] == 70
        assert "db last died: not ready after" in outcome["message"]
        assert system.traces.count("start db") == 2
