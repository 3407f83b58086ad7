"""The guards, purely: what of a batch is applied, what is known, what is refused."""

from typing import Any

import pytest

from actors.drops import DropReason
from actors.records import record_type
from actors.records.record import Row
from actors.store.batch import (
    AccountState,
    AppliedCommit,
    Change,
    IdentityState,
    Operation,
    SyncState,
)
from actors.store.folding import (
    Account,
    Folded,
    Known,
    Moment,
    PurgeFirst,
    Repo,
    fold,
)

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHER = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
LIKE = record_type("app.bsky.feed.like")
DATA = b"data"


def put(key: str = "a", did: str = DID) -> Operation:
    uri = f"at://{did}/app.bsky.feed.like/{key}"
    return Operation(LIKE, uri, uri, "cid", Row((uri,), (did, "subject")))


def removal(key: str = "a", did: str = DID) -> Operation:
    return put(key, did)._replace(row=None, cid="")


def commit(
    rev: str, *operations: Operation, since: str | None = None, did: str = DID
) -> AppliedCommit:
    return AppliedCommit(did, rev, since, None, DATA, operations)


def account(
    seq: int, status: str | None = None, *, host: str = "host", time: int = 0
) -> AccountState:
    return AccountState(DID, status is None, status, host, seq, time or seq)


def known(**more: Any) -> Known:
    return Known(repos={DID: Repo("1", DATA, out_of_step=False)}, **more)


def final(folded: Folded) -> dict[str, bool]:
    """Whether each key was put (or is to go)."""
    return {
        operation.key.rpartition("/")[2]: operation.row is not None
        for of_table in folded.final.values()
        for operation in of_table.values()
    }


def reasons(folded: Folded) -> list[str]:
    return [drop.reason for drop in folded.outcome.drops]


def test_a_commit_at_or_below_the_known_rev_is_skipped() -> None:
    folded = fold([commit("1", put()), commit("2", put("b"), since="1")], known())
    assert final(folded) == {"b": True}
    assert (folded.outcome.commits, folded.outcome.replayed) == (1, 1)


def test_commits_of_an_account_that_is_not_active_are_not_applied_and_move_no_guard() -> None:
    changes: list[Change] = [
        commit("2", put("a"), since="1"),
        account(1, "deactivated"),
        commit("3", put("b"), since="2"),
        account(2),
        commit("4", put("c"), since="3"),
    ]
    folded = fold(changes, known())
    assert final(folded) == {"a": True, "c": True}
    assert reasons(folded) == [DropReason.ACCOUNT_INACTIVE]
    assert folded.repos[DID] == Repo("4", DATA, out_of_step=True)
    assert folded.statuses == {DID: None}


def test_what_was_refused_while_the_account_was_away_is_refused_when_it_comes_again() -> None:
    refused = commit("2", put("b"))._replace(host="host", seq=2)
    after = commit("3", put("c"), since="2")._replace(host="host", seq=4)
    first = fold([account(1, "deactivated"), refused, account(3)], known())
    assert first.final == {}
    there = Known(repos=first.repos, accounts=first.accounts)
    again = fold([account(1, "deactivated"), refused, account(3), after], there)
    assert final(again) == {"c": True}
    assert reasons(again) == [DropReason.ACCOUNT_INACTIVE]
    # Numbers of another host say nothing.
    assert final(fold([refused._replace(host="other")], there)) == {"b": True}


@pytest.mark.parametrize("status", ["suspended", "takendown", "deactivated", "anything", None])
def test_activity_decides_whatever_the_status_says(status: str | None) -> None:
    hidden = AccountState(DID, False, status, "host", 1, 1)
    folded = fold([hidden, commit("2", put())], known())
    assert final(folded) == {}
    assert folded.statuses == {DID: status or "inactive"}
    shown = AccountState(DID, True, status, "host", 2, 2)
    assert final(fold([hidden, shown, commit("2", put())], known())) == {"a": True}


def test_an_account_that_comes_back_is_out_of_step_and_one_that_never_left_is_not() -> None:
    assert fold([account(1, "suspended"), account(2)], known()).repos[DID].out_of_step
    assert fold([account(1)], known()).repos == {}
    assert fold([account(1, "suspended"), account(2)], Known()).repos == {}


def test_account_events_are_ordered_by_number_on_one_host_and_by_time_across_hosts() -> None:
    before = Account(active=True, account=Moment("host", 5, 100))
    at: dict[str, Any] = {"accounts": {DID: before}}
    assert fold([account(5, "deleted")], known(**at)).accounts == {}
    assert fold([account(4, "deleted", time=200)], known(**at)).accounts == {}
    assert fold([account(6, "deleted", time=50)], known(**at)).statuses == {DID: "deleted"}
    moved = fold([account(900, "deleted", host="other", time=100)], known(**at))
    assert moved.accounts == {}
    moved = fold([account(1, "deleted", host="other", time=101)], known(**at))
    assert moved.purges == {DID}


def test_a_replayed_deletion_does_not_undo_a_return() -> None:
    first = fold([account(1, "deleted"), account(2)], Known())
    again = fold([account(1, "deleted")], Known(accounts=first.accounts))
    assert (again.accounts, again.purges) == ({}, set())


def test_an_account_that_is_deleted_is_purged_and_what_follows_its_return_waits() -> None:
    changes: list[Change] = [commit("2", put("a"), since="1"), account(1, "deleted"), account(2)]
    folded = fold(changes, known())
    assert folded.purges == {DID}
    with pytest.raises(PurgeFirst) as caught:
        fold([*changes, commit("3", put("b"), since="2")], known())
    assert (caught.value.did, caught.value.position) == (DID, 3)
    with pytest.raises(PurgeFirst):
        fold([commit("3", put("b"))], known(purging={DID}))


def test_others_do_not_wait_for_a_purge() -> None:
    folded = fold([commit("1", put(did=OTHER), did=OTHER)], known(purging={DID}))
    assert folded.outcome.commits == 1


def test_an_event_about_identity_moves_its_own_guard_alone() -> None:
    folded = fold([IdentityState(DID, "host", 3, 3), account(2, "suspended")], Known())
    assert folded.accounts[DID].identity == Moment("host", 3, 3)
    assert folded.accounts[DID].account == Moment("host", 2, 2)
    later = fold([IdentityState(DID, "host", 2, 9)], Known(accounts=folded.accounts))
    assert later.accounts == {}


@pytest.mark.parametrize(
    ("field", "reason"),
    [("opted_out", DropReason.OPTED_OUT), ("taken_down", DropReason.TAKEN_DOWN)],
)
def test_nothing_of_a_forbidden_author_is_stored_but_deletes_apply(
    field: str, reason: DropReason
) -> None:
    folded = fold(
        [commit("2", put("a"), removal("b"), since="1")],
        known(**{field: {DID}}),
    )
    assert final(folded) == {"a": False, "b": False}
    assert reasons(folded) == [reason]
    assert folded.repos[DID] == Repo("2", DATA, out_of_step=False, withheld=True)


def test_a_forbidden_author_who_only_deletes_has_nothing_withheld() -> None:
    folded = fold([commit("2", removal("b"), since="1")], known(opted_out={DID}))
    assert not folded.repos[DID].withheld


def test_who_opts_in_again_is_out_of_step_since_some_was_withheld() -> None:
    withheld = {DID: Repo("1", DATA, out_of_step=False, withheld=True)}
    folded = fold([commit("2", put(), since="1")], Known(repos=withheld))
    assert folded.repos[DID] == Repo("2", DATA, out_of_step=True, withheld=False)


def test_a_record_that_is_taken_down_goes_alone() -> None:
    taken_down = {f"at://{DID}/app.bsky.feed.like/a"}
    folded = fold([commit("2", put("a"), put("b"), since="1")], known(taken_down=taken_down))
    assert final(folded) == {"a": False, "b": True}
    assert reasons(folded) == [DropReason.TAKEN_DOWN]


def test_the_state_of_a_hidden_account_marks_nothing() -> None:
    hidden = {DID: Account(active=False, status="suspended", account=Moment("host", 1, 1))}
    folded = fold([SyncState(DID, "9", b"other")], known(accounts=hidden))
    assert folded.repos == {}
