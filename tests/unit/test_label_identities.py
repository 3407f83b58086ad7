"""Labelers are known by what the resolver found out, and asked for where that will not do."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.servers import faults
from tests.servers.labels import LabelKey
from tests.unit.labeler_stage import DIDS, Stage, label_stage

A, B = DIDS[:2]


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    with label_stage(database) as made:
        yield made


def holds(stage: Stage, val: str) -> bool:
    return val in stage.values()


def asked(stage: Stage, did: str) -> int:
    return stage.directory.asked().get(f"/{did}", 0)


def test_of_a_labeler_that_the_resolver_knows_nobody_is_asked(stage: Stage) -> None:
    stage.add(A)
    stage.add(B)
    stage.resolved(A)
    stage.publish(A, "of a")
    stage.publish(B, "of b")
    stage.start()
    stage.until_values("of a", "of b")
    assert (asked(stage, A), asked(stage, B)) == (0, 1)


@pytest.mark.parametrize(
    ("status", "known"), [(503, {"age": 90_000}), (403, {"due": True}), (0, {"due": True})]
)
def test_a_directory_that_is_down_holds_up_no_labeler_that_is_known(
    stage: Stage, status: int, known: dict[str, Any]
) -> None:
    stage.add(A)
    stage.resolved(A, **known)
    away = stage.directory.fail(faults.status(status) if status else faults.drop())
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    assert away.fired
    assert stage.problem(A) == ""


def test_what_the_directory_says_wins_over_what_was_known_long_ago(stage: Stage) -> None:
    stage.add(A)
    stage.resolved(A, age=90_000)
    stage.document(A, key=LabelKey("new"))
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    assert asked(stage, A) == 1
    assert stage.refused("bad_signature") == 0


def test_where_a_signature_does_not_hold_what_is_known_is_asked_for_once_more(
    stage: Stage,
) -> None:
    stage.add(A)
    stage.resolved(A)
    stage.document(A, key=LabelKey("new"))
    stage.publish(A, "one")
    stage.keys[A] = LabelKey("never told")
    stage.publish(A, "two")
    stage.start()
    stage.until_values("one")
    stage.until_metric(1, "labels_refused_total", reason="bad_signature")
    assert asked(stage, A) == 1


@pytest.mark.parametrize("says", ["key", "endpoint"])
def test_a_labeler_that_is_another_one_by_an_event_is_read_as_that_one(
    stage: Stage, says: str
) -> None:
    labeler = stage.add(A)
    stage.resolved(A)
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    # It still holds its connection, and no directory answers.
    stage.directory.fail(faults.drop())
    if says == "key":
        stage.keys[A] = LabelKey("new")
    else:
        key = stage.keys[A]
        stage.add(A)
        stage.keys[A] = key
    stage.resolved(A)
    stage.harness.until(lambda: len(labeler.cursors + stage.labelers[A].cursors) > 1)
    stage.publish(A, "two")
    stage.until_values("one", "two")
    assert stage.refused("bad_signature") == 0


def test_what_was_known_later_than_the_labeler_was_begun_breaks_no_connection(
    stage: Stage,
) -> None:
    labeler = stage.add(A)
    stage.start(discover=True)
    stage.publish(A, "one")
    stage.until_values("one")
    stage.resolved(A)
    # One look sees both.
    stage.add(B)
    stage.connection.execute(
        "INSERT INTO labeler_services (uri, cid, creator_did, policies, created_at)"
        " VALUES (%s, 'c', %s, '{}', now())",
        [f"at://{B}/app.bsky.labeler.service/self", B],
    )
    stage.until_metric(2, "labelers")
    stage.publish(A, "two")
    stage.until_values("one", "two")
    assert labeler.cursors == [0]


def test_who_is_a_labeler_no_more_is_read_no_more(stage: Stage) -> None:
    stage.add(A)
    stage.resolved(A)
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    del stage.directory.documents[A]
    stage.connection.execute("UPDATE engine_identities SET labeler = NULL, label_key = NULL")
    stage.harness.until(lambda: "no directory knows it" in stage.problem(A))
    stage.publish(A, "two")
    assert stage.values() == ["one"]
    # And it comes back.
    stage.document(A)
    stage.resolved(A)
    stage.until_values("one", "two")


def test_what_was_signed_before_its_key_was_told_is_read_again_when_it_is(stage: Stage) -> None:
    labeler = stage.add(A)
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    for key, early, late in (("second", "early", "late"), ("third", "too early", "later")):
        stage.keys[A] = LabelKey(key)
        said = stage.metric("labels_refused_total", reason="bad_signature")
        stage.publish(A, early)
        stage.until_metric(said + 1, "labels_refused_total", reason="bad_signature")
        stage.document(A)
        labeler.disconnect()
        stage.publish(A, late)
        stage.harness.until(partial(holds, stage, late))
    # Once in an hour: it could have any number of keys, each of which has all of it read again.
    assert stage.values() == ["early", "late", "later", "one"]
    stage.harness.until(lambda: stage.cursor(A) == 5)


def test_what_an_event_tells_of_a_key_has_what_did_not_hold_before_read_again(
    stage: Stage,
) -> None:
    stage.add(A)
    stage.resolved(A)
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    stage.keys[A] = LabelKey("new")
    stage.publish(A, "early")
    stage.until_metric(1, "labels_refused_total", reason="bad_signature")
    stage.harness.until(lambda: stage.cursor(A) == 2)
    stage.document(A)
    stage.resolved(A)
    stage.until_values("early", "one")
    stage.harness.until(lambda: stage.cursor(A) == 2)
    assert stage.labelers[A].cursors == [0, 1]
