"""How far behind the index is said to be."""

import psycopg
import pytest

from actors.position import Position
from actors.store.checkpoint import Checkpoint
from actors.store.fence import Fence

DAY = 86_400.0


def no_database() -> psycopg.Connection:
    raise psycopg.OperationalError("a lag needs no database")


@pytest.fixture
def position() -> Position:
    return Position(Checkpoint("relay.example", no_database, Fence("ingest", 1, 1)))


def come(position: Position, seq: int, time: float, now: float) -> None:
    position.begin(seq)
    position.mark(seq, time, now)


def test_nothing_is_known_before_the_first_event(position: Position) -> None:
    assert position.lag(1000.0, in_touch=True) is None
    assert position.lag(1000.0, in_touch=False) is None


def test_lag_is_the_age_of_the_oldest_event_that_is_not_durable(position: Position) -> None:
    for seq in range(3):
        come(position, seq, 1000.0 + seq, 1003.0)
    position.finish([0])
    assert position.lag(1060.0, in_touch=True) == 59.0


def test_between_the_events_of_an_old_stream_lag_stays_what_it_is(position: Position) -> None:
    for seq in range(5):
        now = 2 * DAY + 10 * seq
        come(position, seq, DAY + 10 * seq, now)
        assert position.lag(now, in_touch=True) == DAY
        position.finish([seq])
        assert position.lag(now + 1, in_touch=True) == DAY
        assert position.lag(now + 9, in_touch=True) == DAY


def test_a_quiet_source_is_not_a_late_index(position: Position) -> None:
    come(position, 1, 999.0, 1000.0)
    position.finish([1])
    assert position.lag(1000.0 + DAY, in_touch=True) == 1.0
    come(position, 2, 1000.0 + DAY, 1001.0 + DAY)
    assert position.lag(1001.5 + DAY, in_touch=True) == 1.5


def test_without_the_source_lag_grows_with_the_time_since_it_was_in_touch(
    position: Position,
) -> None:
    come(position, 1, 999.0, 1000.0)
    position.finish([1])
    assert position.lag(5000.0, in_touch=True) == 1.0
    assert position.lag(5100.0, in_touch=False) == 101.0
    assert position.lag(5200.0, in_touch=False) == 201.0
    assert position.lag(5201.0, in_touch=True) == 1.0


def test_after_a_checkpoint_lag_is_the_age_of_its_event_until_the_source_is_known_to_have_no_more(
    position: Position,
) -> None:
    position.begin_at(5)
    position.durable_time = 1000.0
    assert position.lag(1000.0 + DAY, in_touch=False) == DAY
    assert position.lag(1000.0 + DAY, in_touch=True) == 0.0
    assert position.lag(1010.0 + DAY, in_touch=False) == 10.0
