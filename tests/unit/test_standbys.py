"""When another relay takes over, and where it goes on."""

import pytest

from actors.beginning import REWIND_SECONDS, begin
from actors.sequence import GAP_SECONDS, Sequence
from actors.standbys import Standbys
from actors.store.checkpoint import Saved
from config.loader import ConfigError, load
from config.source import Start, parse_source

ONE, TWO, THREE = (parse_source(f"wss://{name}.example") for name in ("one", "two", "three"))
LEFT = 1_000_000.0
LIVE = Start("live")


def test_another_takes_over_once_nothing_new_came_for_long_enough() -> None:
    standbys = Standbys([ONE, TWO, THREE], 60.0)
    assert not standbys.give_up(1000.0), "reading has not begun"
    standbys.heard(1000.0)
    assert not standbys.give_up(1059.9)
    assert standbys.give_up(1060.0)
    taken = []
    for now in (1060.0, 1120.0, 1180.0):
        taken.append(standbys.next(now))
        assert not standbys.give_up(now + 59.9), "each has as long"
        assert standbys.give_up(now + 60.0)
    assert taken == [TWO, THREE, ONE]


def test_the_only_one_is_never_given_up() -> None:
    standbys = Standbys([ONE], 60.0)
    standbys.heard(0.0)
    assert not standbys.give_up(1e9)


def test_a_source_never_read_goes_on_a_little_before_where_another_was_left() -> None:
    beginning = begin(None, LIVE, insists=False, name="x", now=LEFT + 50, elsewhere=LEFT)
    assert (beginning.moment, beginning.time) == (LEFT - REWIND_SECONDS, LEFT)
    assert (beginning.last, beginning.live, beginning.chosen) == (-1, False, True)


def test_so_does_one_that_was_left_before() -> None:
    saved = Saved(70, LEFT - REWIND_SECONDS - 1)
    beginning = begin(saved, LIVE, insists=False, name="x", now=LEFT, elsewhere=LEFT)
    assert beginning.moment == LEFT - REWIND_SECONDS


def test_one_that_was_read_last_goes_on_after_its_own_checkpoint() -> None:
    for elsewhere in (None, LEFT - 1, LEFT + REWIND_SECONDS):
        beginning = begin(
            Saved(70, LEFT), LIVE, insists=False, name="x", now=LEFT + 999, elsewhere=elsewhere
        )
        assert (beginning.last, beginning.moment, beginning.chosen) == (70, None, False)


def test_a_start_that_was_asked_for_wins() -> None:
    start = Start("cursor", cursor=5)
    beginning = begin(None, start, insists=True, name="x", now=LEFT, elsewhere=LEFT)
    assert (beginning.last, beginning.moment) == (4, None)


def test_a_time_ahead_of_ours_is_taken_for_now() -> None:
    beginning = begin(None, LIVE, insists=False, name="x", now=LEFT, elsewhere=LEFT + 86_400)
    assert beginning.moment == LEFT - REWIND_SECONDS


def test_what_holds_only_later_events_than_were_read_has_lost_some() -> None:
    gap = Sequence(last=-1, time=LEFT).gap_before(500, LEFT + GAP_SECONDS + 1)
    assert gap is not None
    assert (gap.after, gap.first, gap.lost) == (-1, 500, True)
    assert Sequence(last=-1, time=LEFT).gap_before(500, LEFT + GAP_SECONDS) is None


def test_standbys_are_relays_each_once() -> None:
    key = "SKYSHARD_SOURCE__STANDBY"
    settings = load(None, {key: "wss://bsky.network, wss://two.example,wss://two.example"})
    assert settings.parsed_sources() == (parse_source("wss://bsky.network"), TWO)
    for wrong, why in (("demo", "only relays"), ("two.example", "source.standby: ")):
        with pytest.raises(ConfigError, match=why):
            load(None, {key: wrong})
