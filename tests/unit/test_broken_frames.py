"""When a frame that cannot be read is stepped over."""

from actors.broken import REMEMBERED, BrokenFrames, Chance


def test_the_same_bytes_are_stepped_over_at_the_third_time() -> None:
    broken = BrokenFrames(3)
    assert [broken.judge(b"x", 7) for _ in range(3)] == [
        Chance.ANOTHER,
        Chance.ANOTHER,
        Chance.OVER,
    ]


def test_what_is_stepped_over_again_at_the_same_place_counts_once() -> None:
    broken = BrokenFrames(1)
    assert broken.judge(b"x", 7) is Chance.OVER
    assert broken.judge(b"x", 7) is Chance.COUNTED
    assert broken.judge(b"x", 8) is Chance.OVER


def test_two_that_follow_one_another_both_come_to_be_stepped_over() -> None:
    broken = BrokenFrames(3)
    connections = 0
    while True:  # as a connection goes: it ends at the first frame that gets another chance
        connections += 1
        if all(broken.judge(frame, 7) is not Chance.ANOTHER for frame in (b"x", b"y")):
            break
        assert connections < 10
    assert connections == 5


def test_what_is_remembered_is_bounded() -> None:
    broken = BrokenFrames(2)
    broken.judge(b"x", 7)
    for number in range(REMEMBERED):
        broken.judge(number.to_bytes(2, "big"), 7)
    assert broken.judge(b"x", 7) is Chance.ANOTHER
