"""When a frame that cannot be read is stepped over."""

from actors.broken import BrokenFrames, Chance


def connection(broken: BrokenFrames, *places: int) -> list[Chance]:
    """One connection: broken frames after these events, until it is given up for one of them."""
    broken.connected()
    chances: list[Chance] = []
    for after in places:
        chances.append(broken.judge(after))
        if chances[-1] is Chance.ANOTHER:
            break
    return chances


def test_what_is_broken_is_stepped_over_on_the_third_connection() -> None:
    broken = BrokenFrames(3)
    assert connection(broken, 7) == [Chance.ANOTHER]
    assert connection(broken, 7) == [Chance.ANOTHER]
    assert connection(broken, 7) == [Chance.OVER]


def test_any_number_that_follow_one_another_costs_three_connections() -> None:
    broken = BrokenFrames(3)
    frames = [7] * 10_000
    assert len(connection(broken, *frames)) == 1
    assert len(connection(broken, *frames)) == 1
    assert connection(broken, *frames) == [Chance.OVER] * 10_000


def test_a_source_that_was_found_out_is_stepped_over_further_on_as_well() -> None:
    broken = BrokenFrames(3)
    for _ in range(2):
        connection(broken, 7, 9, 11)
    assert connection(broken, 7, 9, 11) == [Chance.OVER] * 3


def test_a_new_place_has_chances_of_its_own_on_a_new_connection() -> None:
    broken = BrokenFrames(3)
    connection(broken, 7)
    connection(broken, 7)
    assert connection(broken, 9) == [Chance.ANOTHER]
    assert connection(broken, 9) == [Chance.ANOTHER]
    assert connection(broken, 9) == [Chance.OVER]


def test_what_is_stepped_over_again_at_the_same_place_counts_once() -> None:
    broken = BrokenFrames(1)
    assert connection(broken, 7, 7) == [Chance.OVER, Chance.OVER]
    assert connection(broken, 7, 7, 7) == [Chance.COUNTED, Chance.COUNTED, Chance.OVER]
    assert connection(broken, 8) == [Chance.OVER]
