"""A crash at any point of a batch: applied again, nothing is lost and nothing is doubled."""

from collections.abc import Callable

import pytest

from actors.store import tallies
from actors.store.session import DatabaseAway
from actors.store.verify import verify
from tests import tables
from tests.histories import History
from tests.overlap import SECONDS, Applying, Pause
from tests.settling import settle
from tests.writing import (
    begin_run,
    claimed,
    decoded,
    make_index,
    reference_of,
    session,
    writer,
)

POINTS = ("before_write", "before_commit", "after_commit")
WORK = [("user_gate", b"work"), ("another", b"work")]


class Crash(Exception):
    """What a test throws at a crash point."""


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def crash_at(point: str, nth: int) -> tuple[Callable[[str], None], list[str]]:
    """A crash point that throws at its nth pass, and a list that tells whether it did."""
    fired: list[str] = []
    passes = [0]

    def reach(name: str) -> None:
        if name == point:
            passes[0] += 1
            if passes[0] == nth:
                fired.append(name)
                raise Crash(name)

    return reach, fired


def outbox_rows(index: str) -> list[str]:
    with session(index, "observer") as connection:
        rows = connection.execute("SELECT receiver FROM engine_outbox ORDER BY id").fetchall()
    return [receiver for (receiver,) in rows]


def without_users(everything: tables.Tables) -> tables.Tables:
    return {name: rows for name, rows in everything.items() if name != "users"}


@pytest.mark.parametrize("same_connection", [True, False])
@pytest.mark.parametrize("point", POINTS)
def test_a_batch_applied_again_after_a_crash_is_applied_once(
    index: str, point: str, same_connection: bool
) -> None:
    frames = [sent.frame for sent in History(3, commits=150).stream]
    batches = [decoded(frames[at : at + 30]).changes for at in range(0, len(frames), 30)]
    reach, fired = crash_at(point, nth=3)
    epoch = begin_run(index)
    committed = 0
    replayed = 0
    with writer(index, epoch, crash_point=reach) as first, writer(index, epoch) as second:
        writing = first
        for changes in batches:
            try:
                outcome = writing.apply(changes, WORK, {"batches": 1})
            except Crash:
                committed += point == "after_commit"
                writing = first if same_connection else second
                outcome = writing.apply(changes, WORK, {"batches": 1})
            committed += 1
            replayed += outcome.replayed
    assert fired == [point]
    # Work comes with every batch that was committed, known commits or not: doing it twice does it.
    given = [receiver for receiver in outbox_rows(index) if receiver in dict(WORK)]
    assert given == ["user_gate", "another"] * committed
    with session(index, "observer") as connection:
        connection.execute("DELETE FROM engine_outbox WHERE receiver = ANY(%s)", [list(dict(WORK))])
    settle(index)
    expected = reference_of(frames).tables()
    ours = tables.read_tables(index)
    assert tables.differences(without_users(expected), without_users(ours)) == []
    with session(index, "observer") as connection:
        counted = tallies.read(connection, epoch)
    assert counted["batches"] == committed
    again = len([change for change in batches[2] if hasattr(change, "operations")])
    assert (replayed >= again) == (point == "after_commit")
    # Users are the gate's to make.
    assert [wrong for wrong in verify(index) if not wrong.check.startswith("users for ")] == []


def test_a_batch_whose_connection_is_cut_is_away_and_leaves_nothing(index: str) -> None:
    frames = [sent.frame for sent in History(3, commits=40).stream]
    epoch = begin_run(index)
    with session(index, "shard-1") as connection:
        claimed(connection, "shard-1", epoch)
    pause = Pause("before_commit")
    writing = Applying(index, epoch, "shard-1", frames, pause)
    assert pause.reached.wait(SECONDS)
    with session(index, "stranger") as stranger:
        stranger.execute("SELECT pg_terminate_backend(%s, 10000)", [writing.pid])
    pause.release.set()
    with pytest.raises(DatabaseAway):
        writing.done()
    assert not any(tables.read_tables(index).values())
    assert outbox_rows(index) == []
    with session(index, "observer") as connection:
        assert tallies.read(connection, epoch) == {}
    Applying(index, epoch, "shard-1", frames).done()
    settle(index)
    expected = without_users(reference_of(frames).tables())
    assert tables.differences(expected, without_users(tables.read_tables(index))) == []
