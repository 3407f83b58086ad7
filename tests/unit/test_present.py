"""An event that is dated years ahead: it locks nobody out, and moves no clock."""

from typing import Any

from actors.atproto import datetimes, tid
from actors.decoder import Batch
from actors.present import ENOUGH, Present
from actors.store.batch import AccountState, AppliedCommit, IdentityState
from tests import wire
from tests.unit.test_decoder import FIVE_MINUTES, commit_with, sync_with

YEARS = 10 * 365 * 86_400 * 1_000_000
RECORD = [("app.bsky.feed.post/a", wire.record())]


def micros_of(text: str) -> int:
    moment = datetimes.parse(text)
    assert moment is not None
    return datetimes.to_microseconds(moment)


NOW = micros_of(wire.TIME)


def at(micros: int) -> Present:
    """The present of a shard whose clock shows this."""
    return Present(lambda: micros / 1e6)


def decoded(body: dict[str, Any], name: str = "#commit", present: Present | None = None) -> Batch:
    batch = Batch(present=present or at(NOW))
    batch.add(wire.frame(body, name))
    return batch


def dated(body: dict[str, Any], ahead: int) -> dict[str, Any]:
    return {**body, "time": datetimes.to_text(datetimes.from_microseconds(NOW + ahead))}


def rev_at(ahead: int) -> str:
    return tid.from_microseconds(NOW + ahead, 7)


def test_a_commit_dated_years_ahead_is_dropped_with_its_rev() -> None:
    for time in (0, YEARS):
        batch = decoded(dated(commit_with(RECORD, rev_at(YEARS)), time))
        assert batch.changes == []
        assert [drop.reason for drop in batch.drops] == ["rev_in_future"]


def test_a_rev_up_to_five_minutes_ahead_of_the_present_is_taken() -> None:
    assert decoded(dated(commit_with(RECORD, rev_at(FIVE_MINUTES)), FIVE_MINUTES)).drops == []
    batch = decoded(dated(commit_with(RECORD, rev_at(FIVE_MINUTES + 1)), YEARS))
    assert [drop.reason for drop in batch.drops] == ["rev_in_future"]


def test_a_sync_dated_years_ahead_is_dropped() -> None:
    batch = decoded(dated(sync_with(rev_at(YEARS)), YEARS), "#sync")
    assert batch.changes == []
    assert [drop.reason for drop in batch.drops] == ["rev_in_future"]


def test_a_commit_of_now_that_is_dated_years_ahead_is_of_now() -> None:
    (change,) = decoded(dated(commit_with(RECORD), YEARS)).changes
    assert isinstance(change, AppliedCommit)
    assert change.time == NOW


def test_events_about_an_account_that_are_dated_years_ahead_are_of_now() -> None:
    # Else nothing that another host says of it later would count.
    body = {"seq": 1, "did": wire.DID, "time": wire.TIME, "active": True}
    (account,) = decoded(dated(body, YEARS), "#account").changes
    (identity,) = decoded(dated(body, YEARS), "#identity").changes
    assert isinstance(account, AccountState)
    assert isinstance(identity, IdentityState)
    assert (account.time, identity.time) == (NOW, NOW)


def test_a_replay_decides_as_the_first_run_did() -> None:
    late = dated(commit_with(RECORD, rev_at(FIVE_MINUTES + 1)), 0)
    first, again = decoded(late), decoded(late, present=at(NOW + YEARS))
    assert [drop.reason for drop in first.drops] == ["rev_in_future"]
    assert first.drops == again.drops


def test_a_clock_that_is_behind_by_years_costs_a_few_events_and_not_all() -> None:
    present = at(NOW - YEARS)
    commit = dated(commit_with(RECORD, rev_at(0)), 0)
    dropped = sum(len(decoded(commit, present=present).drops) for _ in range(1_000))
    assert dropped < ENOUGH
    # And it lets nobody lock himself out.
    assert decoded(dated(commit_with(RECORD, rev_at(YEARS)), YEARS), present=present).drops


def test_those_few_who_date_their_events_ahead_move_nothing() -> None:
    present = at(NOW)
    for number in range(1_000):
        time = YEARS if number % 3 == 0 else 0
        assert present.bound(NOW + time) == NOW
