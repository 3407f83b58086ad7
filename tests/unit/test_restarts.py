"""When a child is restarted, with whom, how soon, and when no more."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.restarts import Backoff, Intensity, Restart, Strategy

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("restart", "after_crash", "after_orderly_stop"),
    [
        (Restart.PERMANENT, True, True),
        (Restart.TRANSIENT, True, False),
        (Restart.TEMPORARY, False, False),
    ],
)
def test_the_restart_type_decides_which_exits_are_followed_by_a_restart(
    restart: Restart, after_crash: bool, after_orderly_stop: bool
) -> None:
    assert restart.wanted_after(crashed=True) is after_crash
    assert restart.wanted_after(crashed=False) is after_orderly_stop


def test_one_for_one_takes_nobody_along() -> None:
    assert Strategy.ONE_FOR_ONE.affected(NAMES, "b") == ("b",)


def test_rest_for_one_takes_along_those_started_later() -> None:
    assert Strategy.REST_FOR_ONE.affected(NAMES, "b") == ("b", "c", "d")


def test_one_for_all_takes_everybody_along() -> None:
    assert Strategy.ONE_FOR_ALL.affected(NAMES, "b") == NAMES


def test_as_many_restarts_as_the_intensity_are_allowed_and_one_more_is_not() -> None:
    intensity = Intensity(3, 60.0)
    assert [intensity.spend(now) for now in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]


def test_restarts_older_than_the_period_are_forgotten() -> None:
    intensity = Intensity(1, 60.0)
    assert intensity.spend(0.0)
    assert intensity.spend(60.0)
    assert intensity.count(60.0) == 1
    assert not intensity.spend(119.9)


@given(
    times=st.lists(st.floats(0, 1000), max_size=50).map(sorted),
    most=st.integers(0, 10),
    period=st.floats(0.1, 100),
)
def test_the_intensity_counts_exactly_the_restarts_of_the_period(
    times: list[float], most: int, period: float
) -> None:
    intensity = Intensity(most, period)
    for at, now in enumerate(times):
        allowed = intensity.spend(now)
        recent = sum(1 for time in times[: at + 1] if time > now - period)
        assert allowed is (recent <= most)


def test_the_backoff_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(minimum=1.0, maximum=10.0, factor=2.0, jitter=0.0)
    delays = [backoff.delay(failures, random.Random(1)) for failures in range(1, 7)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1), seed=st.integers())
def test_jitter_only_shortens_the_backoff_and_by_its_share_at_most(
    failures: int, jitter: float, seed: int
) -> None:
    whole = Backoff(0.5, 30.0, 2.0, 0.0).delay(failures, random.Random(seed))
    delay = Backoff(0.5, 30.0, 2.0, jitter).delay(failures, random.Random(seed))
    assert whole * (1 - jitter) <= delay <= whole


def test_the_same_seed_gives_the_same_backoff() -> None:
    def delays(seed: int) -> list[float]:
        chance = random.Random(seed)
        return [Backoff().delay(failures, chance) for failures in range(1, 6)]

    assert delays(7) == delays(7)
    assert delays(7) != delays(8)


@pytest.mark.parametrize(
    "wrong", [{"minimum": -1.0}, {"minimum": 5.0, "maximum": 1.0}, {"factor": 0.5}, {"jitter": 2.0}]
)
def test_an_impossible_backoff_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible backoff"):
        Backoff(**wrong)


def test_restarts_that_were_not_the_child_s_fault_are_taken_back() -> None:
    intensity = Intensity(3, 60.0)
    for now, name in ((0.0, "a"), (1.0, "b"), (2.0, "a"), (3.0, "a")):
        intensity.spend(now, name)
    intensity.refund("a", 2)
    assert intensity.count(4.0) == 2
    assert intensity.spend(4.0, "b")
    assert not intensity.spend(5.0, "a")
    intensity.refund("nobody", 2)
    assert intensity.count(5.0) == 4
