"""The random histories hold what they are made for, and most of it is compared."""

from collections import Counter
from functools import cache

from tests import tables
from tests.histories import History, Phase
from tests.property.test_histories_agree import SEEDS, history_of
from tests.reference import Reference

ENOUGH = 10


@cache
def played() -> tuple[tuple[History, Reference, tables.Tables], ...]:
    return tuple(_play(history_of(seed)) for seed in (*SEEDS, *range(2000, 2004)))


def _play(history: History) -> tuple[History, Reference, tables.Tables]:
    reference = Reference()
    for phase in history.phases:
        _play_phase(phase, reference)
    return history, reference, reference.tables()


def _play_phase(phase: Phase, reference: Reference) -> None:
    for setting in phase.settings:
        setting.put(reference)
    for sent in phase.stream:
        reference.frame(sent.frame)
    reference.settle()
    reference.sweep()


def test_they_have_a_thousand_operations_over_twenty_users() -> None:
    for history, _, _ in played():
        assert 950 <= history.operations <= 1_150
        assert len({sent.did for sent in history.stream}) == 20


def test_every_table_that_is_compared_has_rows() -> None:
    held = {name for _, _, made in played() for name, rows in made.items() if rows}
    assert held >= set(tables.COMPARED)


def test_duplicates_of_every_kind_are_kept_aside() -> None:
    kinds = Counter(
        row["table_name"] for _, _, made in played() for row in made["engine_duplicates"].values()
    )
    assert kinds.keys() >= {"likes", "reposts", "bookmarks", "follows", "blocks"}


def test_every_flag_is_set_somewhere() -> None:
    flags = Counter(
        name
        for _, _, made in played()
        for row in made["posts"].values()
        for name, value in row.items()
        if value is True
    )
    for name in ("engine_invalid_reply", "violates_thread_gate", "violates_embedding_rules"):
        assert flags[name] >= ENOUGH, name
    assert flags["has_thread_gate"] >= ENOUGH
    assert flags["has_post_gate"] >= ENOUGH


def test_every_reason_is_told_and_most_of_it_is_sure() -> None:
    told: Counter[str] = Counter()
    unsure: Counter[str] = Counter()
    far = 0
    for _, reference, made in played():
        for (uri,), row in made["notifications"].items():
            if uri in reference.notices.unsure:
                unsure[row["reason"]] += 1
            else:
                told[row["reason"]] += 1
                far += "#notification/reply/" in uri
    assert told.keys() >= {
        *("mention", "quote", "reply", "like", "repost", "like-via-repost", "repost-via-repost"),
        *("follow", "starterpack-joined", "verified", "unverified", "subscribed-post"),
    }
    assert far >= ENOUGH, "replies tell ancestors beyond the parent"
    assert sum(unsure.values()) < sum(told.values()) / 4
    for reason in ("reply", "like", "repost", "mention", "quote"):
        assert unsure[reason] < told[reason], reason


def test_accounts_go_and_come_back_and_settings_are_made() -> None:
    statuses = {
        standing.shown for _, reference, _ in played() for standing in reference.accounts.values()
    }
    assert statuses >= {None, "deleted"}
    assert len(statuses) > 3
    drops = Counter[str]()
    for _, reference, _ in played():
        drops += reference.drops
    assert drops.keys() >= {
        *("invalid_record", "not_authorized", "type_mismatch", "key_too_long"),
        *("account_inactive", "opted_out", "taken_down"),
    }
    kinds = {
        setting.kind
        for history, _, _ in played()
        for phase in history.phases
        for setting in phase.settings
    }
    assert kinds == {"mute", "subscribe", "opt out", "opt in", "forget", "take down", "let back"}
    assert any(repo.withheld for _, reference, _ in played() for repo in reference.repos.values())
    assert any(
        repo.out_of_step for _, reference, _ in played() for repo in reference.repos.values()
    )
