"""What labels do to the rows they meet: the same in every order, and however often they come."""

import random
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.atproto.label import Label
from actors.store.labelling import CREATED, DELETED, Effects, Held, meet

NOW = 1_000


def label(created: int, *, neg: bool = False, expires: int | None = None, sig: int = 1) -> Label:
    return Label(
        "did:web:l", "did:web:s", None, "spam", neg, "", created, None, expires, bytes([sig]), b""
    )


def after(*labels: Label, held: dict[str, Held] | None = None, now: int = NOW) -> Effects:
    return meet([("row", each) for each in labels], held or {}, now)


def row(*labels: Label) -> Held:
    return after(*labels).rows["row"][1]


def test_a_label_makes_a_row_and_its_negation_leaves_a_tombstone() -> None:
    effects = after(label(1), label(2, neg=True))
    assert effects.rows["row"][1] == Held(2, False, b"\x01", None)
    assert effects.events == [("row", CREATED), ("row", DELETED)]
    assert effects.outcomes == {"applied": 1, "negated": 1}


def test_a_label_that_is_replayed_after_its_negation_stays_negated() -> None:
    held = {"row": row(label(1), label(2, neg=True))}
    effects = after(label(1), label(2, neg=True), held=held)
    assert not effects.rows
    assert not effects.events
    assert effects.outcomes == {"outdated": 2}


def test_a_negation_of_what_never_was_is_kept_without_an_event() -> None:
    effects = after(label(2, neg=True), label(1))
    assert effects.rows["row"][1].active is False
    assert not effects.events


def test_of_one_moment_the_negation_wins_in_either_order() -> None:
    for order in permutations((label(1), label(1, neg=True, sig=0))):
        assert row(*order).active is False


def test_a_newer_label_that_still_holds_is_no_event() -> None:
    effects = after(label(1), label(2, expires=5_000))
    assert effects.rows["row"][1].expires == 5_000
    assert effects.events == [("row", CREATED)]


def test_a_label_that_had_expired_before_it_came_holds_nothing_but_its_place() -> None:
    effects = after(label(2, expires=NOW))
    assert effects.rows["row"][1] == Held(2, False, b"\x01", NOW)
    assert not effects.events
    assert effects.outcomes == {"expired": 1}
    assert after(label(1), held={"row": effects.rows["row"][1]}).outcomes == {"outdated": 1}


def test_a_newer_label_that_has_expired_takes_the_older_one_back() -> None:
    assert after(label(1), label(2, expires=5)).events == [("row", CREATED), ("row", DELETED)]


def test_the_expiry_of_a_negation_brings_nothing_back() -> None:
    assert row(label(1), label(2, neg=True, expires=5)) == Held(2, False, b"\x01", None)


_LABELS = st.builds(
    label,
    st.integers(0, 3),
    neg=st.booleans(),
    expires=st.none() | st.sampled_from([5, 5_000]),
    sig=st.integers(0, 2),
)


def _unlike(labels: list[Label]) -> list[Label]:
    """Without several that have all of time, negation and signature in common: no two labels of the
    world do."""
    return list({(each.created, each.neg, each.sig): each for each in labels}.values())


@settings(deadline=None)
@given(st.lists(_LABELS, min_size=1, max_size=6).map(_unlike), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_nor_batches_change_the_row(
    labels: list[Label], chance: random.Random
) -> None:
    expected = row(*labels)
    sent = labels + chance.choices(labels, k=3)
    chance.shuffle(sent)
    held: dict[str, Held] = {}
    balance = 0
    while sent:
        size = chance.randint(1, len(sent))
        effects = after(*sent[:size], held=held)
        held |= {uri: found for uri, (_, found) in effects.rows.items()}
        balance += sum(1 if action == CREATED else -1 for _, action in effects.events)
        del sent[:size]
    assert held["row"] == expected
    assert balance == expected.active
