"""Actors of a pipeline on virtual time: whatever dies whenever, nothing is lost or reordered."""

from __future__ import annotations

import pytest

from engine.invariants import Invariant
from engine.message import Codec
from engine.simulation import Faults, Simulation, SimulationStuck
from tests.sim.pipeline import STORES, Numbers, World, topology


def check(world: World, without: frozenset[int] = frozenset()) -> None:
    """Every number is applied once, in order, by its own store; the checkpoint is at the end."""
    assert world.complete()
    for name in STORES:
        mine = [n for n in range(world.total) if world.rank(n) == name and n not in without]
        assert world.applied[name] == mine


def test_without_faults_everything_is_applied_once() -> None:
    world = World(300)
    with Simulation(topology(world), seed=1) as simulation:
        simulation.run()
        assert simulation.report == {"checkpoint": 299}
        assert set(simulation.generations.values()) == {1}
    check(world)
    assert world.repeats == 0


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def trace(seed: int) -> list[str]:
        with Simulation(topology(World(120)), seed=seed, faults=Faults(kills=4)) as simulation:
            simulation.run()
            return simulation.trace

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


@pytest.mark.parametrize("seed", range(25))
def test_kills_at_random_moments_lose_nothing_and_reorder_nothing(seed: int) -> None:
    world = World(200)
    faults = Faults(kills=6, chance=0.02)
    with Simulation(topology(world), seed=seed, faults=faults) as simulation:
        simulation.run()
        assert len(simulation.killed) == 6, "the faults did not all happen"
        assert simulation.faults_seen == []
        assert not world.letters
    check(world)


@pytest.mark.parametrize("seed", range(10))
def test_long_delays_between_actors_change_nothing(seed: int) -> None:
    world = World(200)
    faults = Faults(kills=3, delay=(0.0, 3.0), restart=(0.0, 5.0))
    with Simulation(topology(world), seed=seed, faults=faults) as simulation:
        simulation.run(seconds=36_000)
        assert len(simulation.killed) == 3
        assert simulation.faults_seen == []
    check(world)


@pytest.mark.parametrize(
    "point",
    [
        "source.told@source:7",
        "store.before@store-0:3",
        "store.between@store-0:3",
        "store.after@store-1:3",
    ],
)
def test_a_crash_at_each_named_place_is_survived(point: str) -> None:
    world = World(200)
    with Simulation(topology(world), seed=3, crash_points=point) as simulation:
        simulation.run()
        assert len(simulation.crashes) == 1
        assert sum(simulation.generations.values()) == len(simulation.generations) + 1
    check(world)


def test_a_crash_between_effect_and_ack_repeats_the_effect_which_is_then_known() -> None:
    world = World(200)
    point = "store.between@store-0:3"
    with Simulation(topology(world), seed=3, crash_points=point) as simulation:
        simulation.run()
    check(world)
    assert world.repeats > 0


def test_poison_is_isolated_and_buried_and_the_stream_goes_on() -> None:
    world = World(200, deadly=frozenset({50, 53, 120}))
    with Simulation(topology(world), seed=4) as simulation:
        simulation.run()
        assert simulation.faults_seen
        lines = [line for line in simulation.trace if " isolates " in line]
        assert any(line.endswith("True") for line in lines)
        assert any(line.endswith("False") for line in lines)
    check(world, without=world.deadly)
    buried = [letter.body for letter in world.letters]
    assert sorted(buried) == sorted(simulation_bytes(item) for item in world.deadly)


def simulation_bytes(item: int) -> bytes:
    return Codec((Numbers,)).encode(Numbers((item,)))


def test_the_window_bounds_what_is_out() -> None:
    world = World(500)
    with Simulation(topology(world), seed=8) as simulation:
        simulation.run()
    assert 0 < world.most_out <= 6


def test_what_never_happens_is_reported_with_the_last_lines() -> None:
    with (
        Simulation(topology(World(10)), seed=1) as simulation,
        pytest.raises(SimulationStuck, match="ready"),
    ):
        simulation.run(lambda: False, seconds=5)


def test_an_actor_that_is_drained_stops_in_good_order_and_is_started_again() -> None:
    world = World(400)
    with Simulation(topology(world), seed=2) as simulation:
        simulation.run(lambda: simulation.time() > 0.3)
        simulation.drain("store-0")
        simulation.run(lambda: simulation.generations["store-0"] == 2)
        assert any(" store-0.1 stops" in line for line in simulation.trace)
        simulation.run()
    check(world)


def test_a_lost_message_is_noticed_as_a_gap_and_made_good() -> None:
    """The transport of this simulation loses one message, which no real one may."""
    world = World(200)
    with Simulation(topology(world), seed=2) as simulation:
        simulation.run(lambda: simulation.time() > 0.2)
        life = simulation._lives["store-0"]  # the fault is injected inside
        simulation.run(lambda: len(life.data) > 1)
        life.data.popleft()
        simulation.run()
        assert any(Invariant.NUMBERS_FOLLOW.name in line for _, line in simulation.faults_seen)
    check(world)
