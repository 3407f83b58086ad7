"""The table of verdicts: when a handle is good, when it goes, and when it stays as it is."""

import random

import pytest

from actors.identity.document import Document
from actors.identity.handles import INVALID
from actors.identity.verdict import (
    ABSENT,
    Intervals,
    Missing,
    Nowhere,
    Outcome,
    Points,
    Silent,
    Verdict,
    judge,
)
from actors.turns import IN_A_ROW, Rest, Turns, share

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHER = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
ANN = Document(claimed="ann.example.com", pds="https://p.example.com", signing_key="zKey")
GRACE = 259_200.0


def outcome(held: str, handle: Points | Nowhere | Silent, silence: float = 0.0) -> Verdict:
    return judge(DID, held, ANN, handle, silence=silence, grace=GRACE)


def test_a_handle_is_good_where_both_directions_agree() -> None:
    verdict = outcome(INVALID, Points(DID))
    assert verdict == Verdict(Outcome.VALID, ANN, "ann.example.com", True, None)


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        (Points(OTHER), Outcome.MISMATCH),
        (Nowhere(Outcome.UNRESOLVED, "no"), Outcome.UNRESOLVED),
        (Nowhere(Outcome.AMBIGUOUS, "two"), Outcome.AMBIGUOUS),
    ],
)
@pytest.mark.parametrize("held", [INVALID, "ann.example.com", "old.example.com"])
def test_a_check_that_failed_takes_it_away(
    held: str, handle: Points | Nowhere, expected: Outcome
) -> None:
    verdict = outcome(held, handle)
    assert (verdict.outcome, verdict.handle, verdict.settled) == (expected, None, True)
    assert verdict.document == ANN
    assert verdict.problem


def test_a_document_without_a_good_handle_takes_it_away_and_asks_nobody() -> None:
    none = judge(DID, "ann.example.com", Document(), None)
    assert (none.outcome, none.settled, none.handle) == (Outcome.NO_HANDLE, True, None)
    reserved = judge(DID, "ann.example.com", Document(claimed="ann.test"), None)
    assert (reserved.outcome, reserved.settled) == (Outcome.RESERVED, True)
    allowed = judge(DID, INVALID, Document(claimed="ann.test"), Points(DID), development=True)
    assert allowed.handle == "ann.test"
    with pytest.raises(ValueError, match="was not asked"):
        judge(DID, INVALID, ANN, None)


@pytest.mark.parametrize("held", [INVALID, "ann.example.com", "old.example.com", DID])
@pytest.mark.parametrize("silence", [0.0, 10 * GRACE])
def test_a_directory_that_is_silent_changes_nothing(held: str, silence: float) -> None:
    verdict = judge(DID, held, Silent("down", 30.0), None, silence=silence, grace=GRACE)
    assert verdict == Verdict(Outcome.DEFERRED, None, None, False, "down", 30.0)


@pytest.mark.parametrize("kind", sorted(ABSENT))
def test_an_account_without_a_document_has_no_handle_and_no_key(kind: Outcome) -> None:
    verdict = judge(DID, "ann.example.com", Missing(kind, "gone"), None)
    assert verdict == Verdict(kind, Document(), None, True, "gone")


def test_a_silent_host_keeps_the_handle_that_it_verified_for_some_days() -> None:
    kept = outcome("ann.example.com", Silent("down"), GRACE - 1)
    assert (kept.outcome, kept.settled, kept.document) == (Outcome.DEFERRED, False, ANN)
    over = outcome("ann.example.com", Silent("down"), GRACE)
    assert (over.outcome, over.settled, over.handle) == (Outcome.UNREACHABLE, True, None)


def test_a_silent_host_keeps_no_handle_that_the_document_does_not_name_any_more() -> None:
    verdict = outcome("old.example.com", Silent("down"))
    assert (verdict.outcome, verdict.settled, verdict.handle) == (Outcome.UNREACHABLE, True, None)
    # Nor a DID that an older program took for a handle.
    assert outcome(DID, Silent("down")).settled
    never = outcome(INVALID, Silent("down"), 10 * GRACE)
    assert (never.outcome, never.settled) == (Outcome.DEFERRED, False)


# --- when it is looked at again ------------------------------------------------------------------


class Most(random.Random):
    """No jitter."""

    def random(self) -> float:
        return 0.0


def after(kind: Outcome, failures: int = 0, wait: float = 0.0) -> float:
    return Intervals().after(Verdict(kind, None, None, True, None, wait), failures, Most())


def test_good_handles_are_looked_at_daily_and_others_hourly() -> None:
    assert after(Outcome.VALID, 9) == 86_400
    for kind in set(Outcome) - ABSENT - {Outcome.VALID, Outcome.DEFERRED}:
        assert after(kind, 9) == 3_600


def test_accounts_that_are_gone_are_looked_at_ever_less_often() -> None:
    assert [after(Outcome.TOMBSTONED, failures) for failures in (0, 1, 5, 99)] == [
        *(3_600, 7_200, 86_400, 86_400)
    ]


def test_silence_is_waited_out_for_ever_longer_and_as_long_as_was_asked_for() -> None:
    assert [after(Outcome.DEFERRED, failures) for failures in (0, 1, 2, 1000)] == [
        *(120, 240, 480, 21_600)
    ]
    assert after(Outcome.DEFERRED, 0, 900.0) == 900


def test_what_was_looked_at_together_is_not_for_ever() -> None:
    chance = random.Random(1)
    verdict = Verdict(Outcome.VALID, None, None, True, None)
    times = {Intervals().after(verdict, 0, chance) for _ in range(100)}
    assert len(times) == 100
    assert all(0.9 * 86_400 <= seconds <= 86_400 for seconds in times)


# --- turns ---------------------------------------------------------------------------------------


def test_one_tries_when_a_rest_is_over_and_all_others_after_it_worked() -> None:
    turns = Turns(8)
    assert turns.room(True, 0.0) == 8
    turns.directory.failed(0.0, 60.0, surely=True)
    assert turns.room(True, 59.9) == 0
    assert turns.room(False, 59.9) == 8
    assert turns.room(True, 60.1) == 1
    turns.begins(True)
    assert turns.room(True, 60.1) == 0
    turns.ends(True)
    turns.directory.worked()
    assert turns.room(True, 60.2) == 8


def test_names_that_do_not_work_are_tried_by_several_of_any_rank() -> None:
    turns = Turns(8)
    turns.names.failed(0.0, surely=True)
    assert [turns.room(plc, 4.9) for plc in (True, False)] == [0, 0]
    assert [turns.room(plc, 5.1) for plc in (True, False)] == [4, 4]
    chosen = share([[f"a{number}" for number in range(9)], ["b"], []], turns.room(True, 5.1))
    assert chosen == ["a0", "a1", "a2", "b"]
    turns.directory.failed(5.1, surely=True)
    assert turns.room(True, 10.2) == 1


def test_a_rest_grows_while_nothing_works_and_has_a_bound() -> None:
    rest, now, tries = Rest(1), 0.0, 0
    while now < 3600.0:
        rest.failed(now)
        tries += 1
        now += rest.left(now)
    assert tries <= 18
    rest.worked()
    rest.failed(now)
    assert rest.left(now) == 5.0


def test_failures_of_single_ones_are_no_outage_until_there_are_many_in_a_row() -> None:
    rest = Rest(IN_A_ROW)
    for _ in range(IN_A_ROW - 1):
        rest.failed(0.0)
    assert not rest.goes_on
    rest.worked()
    for _ in range(IN_A_ROW):
        assert not rest.goes_on
        rest.failed(0.0)
    assert rest.goes_on


def test_several_that_fail_together_are_one_failure() -> None:
    rest = Rest(1)
    for _ in range(50):
        rest.failed(0.0)
    assert rest.left(0.0) == 5.0


def test_the_first_rank_comes_first_and_leaves_a_part_to_those_behind() -> None:
    first, second, third = ([f"{rank}{number}" for number in range(50)] for rank in "abc")
    chosen = share([first, second, third], 16)
    assert len(chosen) == len(set(chosen)) == 16
    assert [sum(each.startswith(rank) for each in chosen) for rank in "abc"] == [12, 3, 1]
    assert share([first[:2], [], third], 16) == [*first[:2], *third[:14]]
    assert share([[], [], third[:3]], 16) == third[:3]
    assert share([first, second, third], 1) == first[:1]
    assert share([first[:5], second[:2], []], 16) == [*first[:5], *second[:2]]
