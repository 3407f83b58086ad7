"""What must always hold, and what is said when it does not."""

from collections.abc import Callable

import pytest

from engine import invariants
from engine.invariants import Invariant, InvariantViolated


@pytest.mark.parametrize(
    "holds",
    [
        lambda: invariants.numbers_follow(4, 5),
        lambda: invariants.ack_follows(4, 4, 9),
        lambda: invariants.ack_follows(4, 9, 9),
        lambda: invariants.window_bounded(8, 100, 8, 100),
        lambda: invariants.queue_bounded("frames", 8, 100, 8, 100),
        lambda: invariants.watermark_follows(7, 7),
        lambda: invariants.checkpoint_behind(7, 7),
        lambda: invariants.generation_follows("shard-0", 1, 3),
    ],
)
def test_what_holds_passes_in_silence(holds: Callable[[], None]) -> None:
    holds()


@pytest.mark.parametrize(
    ("invariant", "violate", "found"),
    [
        (Invariant.NUMBERS_FOLLOW, lambda: invariants.numbers_follow(4, 6), "6 came after 4"),
        (Invariant.NUMBERS_FOLLOW, lambda: invariants.numbers_follow(4, 4), "4 came after 4"),
        (Invariant.ACKS_FOLLOW, lambda: invariants.ack_follows(4, 3, 9), "3 was acked after 4"),
        (Invariant.ACKS_FOLLOW, lambda: invariants.ack_follows(4, 10, 9), "with 9 sent"),
        (Invariant.WINDOW_BOUNDED, lambda: invariants.window_bounded(9, 1, 8, 9), "9 of 8"),
        (Invariant.WINDOW_BOUNDED, lambda: invariants.window_bounded(1, 10, 8, 9), "10 of 9"),
        (Invariant.QUEUE_BOUNDED, lambda: invariants.queue_bounded("q", 2, 1, 1, 9), "q holds 2"),
        (Invariant.WATERMARK_FOLLOWS, lambda: invariants.watermark_follows(7, 6), "6 came after"),
        (Invariant.CHECKPOINT_BEHIND, lambda: invariants.checkpoint_behind(8, 7), "8 was to be"),
        (
            Invariant.GENERATIONS_FOLLOW,
            lambda: invariants.generation_follows("shard-0", 3, 3),
            "shard-0 came up as 3",
        ),
    ],
)
def test_a_violation_says_which_rule_and_what_was_found(
    invariant: Invariant, violate: Callable[[], None], found: str
) -> None:
    with pytest.raises(InvariantViolated, match=found) as caught:
        violate()
    assert caught.value.invariant is invariant
    assert invariant.value in str(caught.value)
