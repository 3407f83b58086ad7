"""The end of a run: asked for by a signal or by an actor, hurried, forced, or without warning."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.chaos.supervised import group, service, soldier, supervised

GROUPS = (service("db"), group("gate"), group("shard", "shard-0", "shard-1"), group("ingest"))
NAMES = ("db", "gate", "shard-0", "shard-1", "ingest")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_all_down_in_the_reverse_order_of_their_start(
    arena: Path, number: signal.Signals
) -> None:
    with supervised(arena, *GROUPS) as system:
        system.wait_ready(*NAMES)
        system.pids()
        system.signal(number)
        outcome = system.outcome()
        assert (outcome["code"], outcome["stopped_by"]) == (0, number.name)
        stops = [line.removeprefix("stop ") for line in system.traces if line.startswith("stop")]
        assert stops[0] == "ingest"
        assert sorted(stops[1:3]) == ["shard-0", "shard-1"]
        assert stops[3:] == ["gate", "db"]
        assert system.traces.count("closing") == 1
        assert system.traces.index("stop gate") < system.traces.index("closing")
        assert system.traces[-1] == "stop db"
        assert not [event for event in system.events if event["level"] != "info"]
        system.wait_all_gone()
        assert list(arena.glob("run-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_the_terminal_sends_to_all_reaches_children_only_through_the_supervisor(
    arena: Path, number: signal.Signals
) -> None:
    with supervised(arena, *GROUPS) as system:
        system.wait_ready(*NAMES)
        system.signal_from_terminal(number)
        outcome = system.outcome()
        assert (outcome["code"], outcome["stopped_by"]) == (0, number.name)
        assert next(line for line in system.traces if line.startswith("stop")) == "stop ingest"
        assert system.traces[-1] == "stop db"
        downs = [event["reason"] for event in system.lines("is down")]
        assert downs[:4] == ["in good order"] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_newborn_child_is_deaf_to_the_terminal_already(
    arena: Path, number: signal.Signals
) -> None:
    with supervised(arena, group("gate")) as system:
        pid = system.wait_for_line("gate starts")["pid"]
        os.kill(pid, number)
        assert system.wait_ready("gate") == {"gate": pid}


def test_a_sigterm_to_a_child_alone_drains_it_and_it_is_restarted(arena: Path) -> None:
    with supervised(arena, group("gate")) as system:
        pids = system.wait_ready("gate")
        os.kill(pids["gate"], signal.SIGTERM)
        system.wait_for_trace("stop gate")
        system.wait_ready("gate", times=2)


def test_an_actor_that_finishes_the_run_hands_over_its_report(arena: Path) -> None:
    with supervised(arena, *GROUPS) as system:
        system.wait_ready(*NAMES)
        system.order("ingest", "finish")
        outcome = system.outcome()
        assert (outcome["code"], outcome["stopped_by"]) == (0, "finish")
        assert outcome["report"] == {"by": "ingest"}
        assert system.traces[-1] == "stop db"


def test_an_actor_that_fails_the_run_is_not_restarted_and_gives_the_exit_code(
    arena: Path,
) -> None:
    with supervised(arena, *GROUPS) as system:
        system.wait_ready(*NAMES)
        system.order("shard-0", "fail")
        outcome = system.outcome()
        assert (outcome["code"], outcome["stopped_by"]) == (42, "fail")
        assert outcome["message"] == "the tables are of a newer version"
        assert outcome["restarts"] == {}


def test_what_does_not_drain_in_time_is_stopped_by_sigterm(arena: Path) -> None:
    slow = soldier("ingest", "drains_for_ever", drain_seconds=0.5)
    with supervised(arena, group("gate"), group("ingest", slow)) as system:
        system.wait_ready("gate", "ingest")
        system.signal(signal.SIGTERM)
        outcome = system.outcome()
        assert outcome["code"] == 0
        line = system.wait_for_line("ingest did not end within 0.5 s of drain")
        assert line["next"] == "SIGTERM"
        assert "stop ingest" in system.traces
        assert system.traces[-2:] == ["stop gate", "closing"]


def test_a_child_that_hears_nothing_is_killed_in_the_end(arena: Path) -> None:
    deaf = soldier("ingest", "deaf", drain_seconds=0.2, terminate_seconds=0.2)
    with supervised(arena, group("gate"), group("ingest", deaf)) as system:
        system.wait_ready("gate", "ingest")
        system.pids()
        system.signal(signal.SIGTERM)
        assert system.outcome()["code"] == 0
        line = system.wait_for_line("ingest did not end within 0.2 s of SIGTERM")
        assert line["next"] == "SIGKILL"
        assert system.wait_for_line("ingest is down")["reason"] == "killed by SIGKILL"
        assert "stop gate" in system.traces
        system.wait_all_gone()


def test_a_second_ctrl_c_takes_away_the_time_to_drain(arena: Path) -> None:
    slow = soldier("ingest", "drains_for_ever", drain_seconds=3600.0)
    with supervised(arena, service("db"), group("gate"), group("ingest", slow)) as system:
        system.wait_ready("db", "gate", "ingest")
        system.signal(signal.SIGINT)
        system.wait_for_trace("drain ingest")
        system.signal(signal.SIGINT)
        assert system.outcome()["code"] == 0
        assert system.wait_for_line("SIGINT again: hurrying the shutdown")
        assert "stop ingest" in system.traces
        assert system.traces[-1] == "stop db"


def test_a_first_signal_hurries_a_shutdown_that_is_under_way_already(arena: Path) -> None:
    slow = soldier("ingest", "drains_for_ever", drain_seconds=3600.0)
    with supervised(arena, group("gate"), group("ingest", slow)) as system:
        system.wait_ready("gate", "ingest")
        system.order("gate", "finish")
        system.wait_for_trace("drain ingest")
        system.signal(signal.SIGTERM)
        system.wait_for_line("SIGTERM: hurrying the shutdown that is under way")
        assert system.outcome()["stopped_by"] == "finish"
        assert not system.lines("again")


def test_what_was_taken_is_given_back_where_no_service_follows(arena: Path) -> None:
    with supervised(arena, group("gate")) as system:
        system.wait_ready("gate")
        system.signal(signal.SIGTERM)
        assert system.outcome()["code"] == 0
        assert system.traces[-2:] == ["stop gate", "closing"]


def test_a_third_ctrl_c_kills_what_is_left(arena: Path) -> None:
    deaf = soldier("ingest", "deaf", drain_seconds=3600.0)
    with supervised(arena, group("gate"), group("ingest", deaf)) as system:
        system.wait_ready("gate", "ingest")
        system.pids()
        system.signal(signal.SIGINT)
        system.wait_for_trace("drain ingest")
        system.signal(signal.SIGINT)
        system.wait_for_trace("stop gate")
        assert not system.lines("ingest is down")
        system.signal(signal.SIGINT)
        assert system.outcome()["code"] == 0
        assert system.wait_for_line("ingest is down")["reason"] == "killed by SIGKILL"
        system.wait_all_gone()


def test_a_signal_during_the_start_ends_the_run_at_once(arena: Path) -> None:
    (arena / "db.hold").touch()
    with supervised(arena, *GROUPS) as system:
        system.wait_for_line("db waits for: held back")
        system.pids()
        system.signal(signal.SIGTERM)
        assert system.outcome()["code"] == 0
        assert system.traces == ["start db", "closing", "stop db"]
        system.wait_all_gone()


def test_an_actor_that_is_still_starting_is_ended_by_sigterm_or_sigkill(arena: Path) -> None:
    slow = soldier("gate", "slow_start", terminate_seconds=0.2)
    with supervised(arena, group("gate", slow)) as system:
        system.wait_for_trace("start gate epoch 0")
        system.pids()
        system.signal(signal.SIGTERM)
        system.signal(signal.SIGINT)
        assert system.outcome()["code"] == 0
        system.wait_all_gone()


def test_a_killed_supervisor_leaves_no_process_behind(arena: Path) -> None:
    with supervised(arena, *GROUPS) as system:
        system.wait_ready(*NAMES)
        assert len(system.pids()) >= 6
        system.signal(signal.SIGKILL)
        system.process.wait()
        system.wait_all_gone()


def test_even_a_stuck_actor_ends_with_a_killed_supervisor(arena: Path) -> None:
    with supervised(arena, group("gate")) as system:
        system.wait_ready("gate")
        system.order("gate", "stick")
        system.wait_for_trace("obey gate stick")
        system.pids()
        system.signal(signal.SIGKILL)
        system.process.wait()
        system.wait_all_gone()


def test_the_next_run_removes_what_a_killed_one_left(arena: Path) -> None:
    with supervised(arena, group("gate")) as system:
        system.wait_ready("gate")
        system.pids()
        system.signal(signal.SIGKILL)
        system.process.wait()
        system.wait_all_gone()
    (left,) = arena.glob("run-*")
    with supervised(arena, group("gate")) as system:
        system.wait_ready("gate")
        assert not left.exists()
        system.signal(signal.SIGTERM)
        assert system.outcome()["code"] == 0


def test_children_have_the_names_of_their_actors(arena: Path) -> None:
    with supervised(arena, group("shard", "shard-0", "shard-1")) as system:
        pids = system.wait_ready("shard-0", "shard-1")
        for name, pid in pids.items():
            assert Path(f"/proc/{pid}/comm").read_text().strip() == name


def test_who_wants_the_status_of_the_system_gets_it(arena: Path) -> None:
    with supervised(
        arena, group("gate"), group("monitor", soldier("monitor", wants_status=True))
    ) as system:
        system.wait_for_trace("status monitor running 2", times=2)
        assert not [line for line in system.traces if line.startswith("status gate")]


def test_neither_zombies_nor_descriptors_are_left_of_dead_children(arena: Path) -> None:
    with supervised(arena, group("gate", intensity=10)) as system:
        supervisor = psutil.Process(system.process.pid)
        descriptors = []
        for times in range(1, 5):
            pid = system.wait_ready("gate", times=times)["gate"]
            descriptors.append(supervisor.num_fds())
            os.kill(pid, signal.SIGKILL)
            system.wait_ready("gate", times=times + 1)
            assert not psutil.pid_exists(pid)
        assert len(set(descriptors)) == 1


def test_a_third_ctrl_c_kills_even_a_service_that_does_not_stop(arena: Path) -> None:
    (arena / "db.deaf").touch()
    database = service("db")
    database["children"][0]["drain_seconds"] = 3600.0
    with supervised(arena, database) as system:
        system.wait_ready("db")
        system.pids()
        system.signal(signal.SIGINT)
        system.wait_for_line("shutting down")
        system.signal(signal.SIGINT)
        system.wait_for_line("hurrying", times=1)
        system.signal(signal.SIGINT)
        assert system.outcome()["code"] == 0
        assert system.wait_for_line("db is down")["reason"] == "killed by SIGKILL"
        system.wait_all_gone()


def test_a_service_whose_stop_fails_is_killed_and_the_reason_logged(arena: Path) -> None:
    (arena / "db.unstoppable").touch()
    with supervised(arena, service("db")) as system:
        system.wait_ready("db")
        system.pids()
        system.signal(signal.SIGTERM)
        assert system.outcome()["code"] == 0
        assert "no way to stop it" in system.wait_for_line("cannot be stopped")["exception"]
        system.wait_all_gone()


@pytest.mark.parametrize("moment", ["db starts", "gate starts", "shard-1 starts"])
def test_a_supervisor_killed_during_the_start_leaves_no_process_behind(
    arena: Path, moment: str
) -> None:
    with supervised(arena, *GROUPS) as system:
        system.wait_for_line(moment)
        system.pids()
        system.signal(signal.SIGKILL)
        system.process.wait()
        system.wait_all_gone()
