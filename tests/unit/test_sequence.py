"""Gaps and restarts of a host's numbering, told from numbers and times."""

from actors.sequence import SIGNS_OF_RESTART, Sequence


def test_a_jump_of_numbers_and_time_is_a_gap_of_both() -> None:
    gap = Sequence(last=100, time=1000.0).gap_before(5000, 4600.0)
    assert gap is not None
    assert (gap.events, gap.seconds, gap.lost) == (4899, 3600.0, True)


def test_a_jump_of_numbers_alone_may_be_what_the_server_deleted() -> None:
    gap = Sequence(last=100, time=1000.0).gap_before(5000, 1002.0)
    assert gap is not None
    assert (gap.events, gap.seconds, gap.lost) == (4899, 2.0, False)


def test_the_next_number_is_no_gap() -> None:
    assert Sequence(last=100, time=1000.0).gap_before(101, 1002.0) is None


def test_a_jump_of_time_alone_is_a_quiet_night() -> None:
    assert Sequence(last=100, time=1000.0).gap_before(101, 40_000.0) is None


def test_a_source_that_replays_the_cursor_itself_shows_no_gap() -> None:
    assert Sequence(last=100, time=1000.0).gap_before(100, 40_000.0) is None


def test_without_times_only_the_announcement_of_the_source_makes_a_loss() -> None:
    def lost() -> bool:
        gap = sequence.gap_before(5000, None)
        assert gap is not None
        assert (gap.events, gap.seconds) == (4899, None)
        return gap.lost

    sequence = Sequence(last=100)
    assert not lost()
    sequence.announced_outdated = True
    assert lost()
    sequence.connected()
    assert not lost()


def test_a_first_start_has_no_gap() -> None:
    assert Sequence().gap_before(10**9, 1000.0) is None


def test_the_cursor_of_an_empty_position_asks_for_the_oldest() -> None:
    assert Sequence().cursor == 0
    assert Sequence(last=7).cursor == 7


def test_old_numbers_with_new_times_in_a_row_are_a_new_numbering() -> None:
    sequence = Sequence(last=10**9, time=1000.0)
    judged = [sequence.restarted_at(5000.0) for _ in range(SIGNS_OF_RESTART)]
    assert judged == [False] * (SIGNS_OF_RESTART - 1) + [True]


def test_repeated_events_are_never_a_new_numbering() -> None:
    sequence = Sequence(last=10**9, time=1000.0)
    assert not any(sequence.restarted_at(999.0) for _ in range(1000))


def test_one_odd_event_among_repeated_ones_is_no_new_numbering() -> None:
    sequence = Sequence(last=10**9, time=1000.0)
    for _ in range(100):
        assert not any(sequence.restarted_at(9000.0) for _ in range(SIGNS_OF_RESTART - 1))
        assert not sequence.restarted_at(999.0)


def test_events_without_a_time_prove_nothing() -> None:
    sequence = Sequence(last=10**9, time=1000.0)
    assert not any(sequence.restarted_at(None) for _ in range(100))


def test_an_event_before_the_cursor_asked_for_shows_that_the_host_is_not_there_yet() -> None:
    sequence = Sequence()
    sequence.begin(999_998, None, 999_999)
    assert sequence.asked_too_much(1119)
    # A source may send the event of the cursor itself.
    assert not sequence.asked_too_much(999_998)
    sequence.begin(1118)
    assert not sequence.asked_too_much(5)


def test_a_stream_is_short_when_it_ends_before_what_is_wanted_of_it() -> None:
    sequence = Sequence()
    assert sequence.short(-1) is None
    sequence.begin(99, None, 100)
    assert sequence.short(None) is None
    assert sequence.short(99) == "ends at event 99, before the cursor 100"
    assert sequence.short(-1) == "holds no event, before the cursor 100"
    sequence.begin(99, 1000.0)
    assert sequence.short(99) is None
