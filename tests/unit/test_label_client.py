"""The label client as a process, with labelers and a directory on loopback."""

from collections.abc import Iterator

import pytest

from actors.atproto import frames
from actors.labeler_reader import ReaderSettings
from engine.restarts import Backoff
from tests.servers import faults
from tests.servers.labeler import outdated_cursor
from tests.servers.labels import LabelKey, labels_frame
from tests.unit.labeler_stage import CLIENT, DIDS, SUBJECT, Stage, label_stage

A, B, C, D = DIDS


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    with label_stage(database) as made:
        yield made


def test_a_labeler_is_read_from_its_beginning_and_then_as_labels_come(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one", "two")
    stage.start()
    stage.until_values("one", "two")
    stage.publish(A, "three")
    stage.publish(A, "one", neg=True, cts="2026-01-01T00:00:01Z")
    stage.until_values("three", "two")
    stage.harness.until(lambda: stage.cursor(A) == 4)
    assert stage.labelers[A].cursors == [0]
    stage.until_metric(3, "labels_applied_total")
    stage.until_metric(1, "labels_negated_total")
    stage.until_metric(1, "labeler_connected", labeler=A)
    stage.harness.until(lambda: stage.metric("label_lag_seconds", labeler=A) > 0)


def test_after_a_crash_it_goes_on_at_the_cursor(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one", "two")
    stage.start()
    stage.harness.until(lambda: stage.cursor(A) == 2)
    stage.harness.kill(CLIENT)
    stage.publish(A, "three")
    stage.harness.restart(CLIENT)
    stage.until_values("one", "three", "two")
    assert stage.labelers[A].cursors == [0, 2]


@pytest.mark.parametrize("point", ["written", "before_commit", "after_commit"])
def test_killed_between_any_two_steps_it_loses_and_doubles_nothing(
    database: str, point: str
) -> None:
    with label_stage(database, f"label_client.{point}@{CLIENT}:2") as stage:
        stage.add(A)
        stage.publish(A, "one")
        stage.start()
        stage.until_values("one")
        stage.publish(A, "two", "three")
        stage.harness.bury(CLIENT)
        assert (stage.cursor(A) or 0) <= len(stage.values())
        stage.harness.restart(CLIENT)
        stage.until_values("one", "three", "two")
        stage.harness.until(lambda: stage.cursor(A) == 3)
        assert stage.connection.execute("SELECT count(*) FROM label_events").fetchone() == (3,)
        assert any("fired.label_client" in path.name for path in stage.harness.run_dir.iterdir())


def test_forged_labels_and_labels_of_others_are_refused_and_the_stream_goes_on(
    stage: Stage,
) -> None:
    labeler = stage.add(A)
    stage.add(B)
    good = stage.label(A, "good")
    forged = {**stage.label(A, "forged"), "val": "worse"}
    strange = LabelKey("somebody").make(A, SUBJECT, "strange")
    labeler.publish(forged, good, strange, stage.label(B, "others"))
    labeler.publish(stage.label(A, "v" * 129), stage.label(A, "late", cts="2999-01-01T00:00:00Z"))
    labeler.publish(stage.label(A, "v" * 128), {}, {"ver": 1})
    stage.start(labelers=(A,))
    stage.until_values("good", "v" * 128)
    stage.harness.until(lambda: stage.cursor(A) == 3)
    for reason, amount in {
        "bad_signature": 2,
        "wrong_source": 1,
        "bad_value": 1,
        "in_future": 1,
        "unknown_version": 1,
        "not_a_label": 1,
    }.items():
        stage.until_metric(amount, "labels_refused_total", reason=reason)


def test_a_key_that_changed_is_looked_up_again_and_a_bad_one_not_for_every_label(
    stage: Stage,
) -> None:
    stage.add(A)
    stage.publish(A, "old")
    stage.start()
    stage.until_values("old")
    stage.document(A, key=LabelKey("new"))
    stage.publish(A, "new")
    stage.until_values("new", "old")
    asked = stage.directory.asked()[f"/{A}"]
    assert asked == 2
    stage.keys[A] = LabelKey("never told")
    stage.publish(A, *(f"bad{number}" for number in range(20)))
    stage.until_metric(20, "labels_refused_total", reason="bad_signature")
    assert stage.directory.asked()[f"/{A}"] <= asked + 1
    assert stage.values() == ["new", "old"]


def test_while_the_directory_is_away_a_bad_signature_holds_the_labeler_and_loses_nothing(
    stage: Stage,
) -> None:
    stage.add(A)
    stage.publish(A, "old")
    stage.start()
    stage.until_values("old")
    away = stage.directory.fail(faults.status(503))
    stage.document(A, key=LabelKey("new"))
    stage.publish(A, "new")
    stage.harness.until(lambda: "503" in stage.problem(A))
    assert away.fired
    assert stage.cursor(A) == 1
    stage.directory.heal()
    stage.until_values("new", "old")
    assert stage.refused("bad_signature") == 0


def test_a_dead_labeler_and_one_without_a_document_disturb_none_of_the_others(
    stage: Stage,
) -> None:
    stage.add(A)
    stage.add(B).refuse()
    stage.add(C).refuse_with = 500
    stage.labelers[D] = stage.labelers[A]
    stage.publish(A, "one")
    stage.start()
    stage.until_values("one")
    stage.harness.until(lambda: "cannot connect" in stage.problem(B))
    stage.harness.until(lambda: "HTTP 500" in stage.problem(C))
    stage.harness.until(lambda: "no directory knows it" in stage.problem(D))
    stage.publish(A, "two")
    stage.until_values("one", "two")
    assert stage.problem(A) == ""
    # And each comes back by itself.
    stage.publish(B, "of b")
    stage.labelers[B].listen()
    stage.publish(C, "of c")
    stage.labelers[C].refuse_with = None
    stage.until_values("of b", "of c", "one", "two")
    stage.harness.until(lambda: stage.problem(B) == stage.problem(C) == "")


def test_a_lost_connection_is_made_again_from_the_cursor(stage: Stage) -> None:
    labeler = stage.add(A)
    labeler.close_after = 2
    stage.start()
    stage.publish(A, *(f"v{number}" for number in range(5)))
    stage.until_values("v0", "v1", "v2", "v3", "v4")
    labeler.disconnect()
    stage.publish(A, "v5")
    stage.until_values("v0", "v1", "v2", "v3", "v4", "v5")
    stage.harness.until(lambda: stage.cursor(A) == 6)
    assert {2, 4} <= set(labeler.cursors)


def test_a_labeler_that_moved_is_read_from_its_beginning(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one", "two", "three")
    stage.start()
    stage.harness.until(lambda: stage.cursor(A) == 3)
    old = stage.labelers[A]
    key = stage.keys[A]
    stage.add(A)
    stage.document(A, key=key)
    stage.publish(A, "elsewhere")
    old.refuse()
    stage.until_values("elsewhere", "one", "three", "two")
    stage.harness.until(lambda: stage.cursor(A) == 1)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_labeler_whose_numbers_began_anew_is_read_from_its_beginning(
    stage: Stage, says_so: bool
) -> None:
    stage.add(A)
    stage.publish(A, "one", "two")
    stage.start()
    stage.harness.until(lambda: stage.cursor(A) == 2)
    stage.harness.kill(CLIENT)
    stage.connection.execute("UPDATE engine_labelers SET cursor = 700")
    stage.connection.execute("DELETE FROM labels")
    if not says_so:
        # It ignores a cursor that it does not know.
        stage.labelers[A].send(labels_frame(3, stage.label(A, "three")), 701)
        stage.publish(A, "four")
    stage.harness.restart(CLIENT)
    vals = ["one", "two"] if says_so else ["one", "two", "three", "four"]
    stage.until_values(*vals)


def test_frames_that_cannot_be_read_are_stepped_over_after_some_tries(stage: Stage) -> None:
    labeler = stage.add(A)
    stage.publish(A, "one")
    labeler.send(b"\xff\xff", 2)
    labeler.send(outdated_cursor())
    labeler.send(frames.encode("#unknown", {"seq": 4}))
    stage.publish(A, "two")
    stage.start()
    stage.until_values("one", "two")
    stage.until_metric(1, "labels_refused_total", reason="unreadable")
    assert labeler.cursors == [0, 1, 1]


def test_labels_that_are_no_longer_kept_are_told_of_and_counted(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.add(A)
    stage.publish(A, "one")
    stage.labelers[A].send(outdated_cursor())
    stage.publish(A, "two")
    stage.start()
    stage.until_values("one", "two")
    stage.until_metric(1, "labeler_outdated_cursors_total")
    assert stage.problem(A) == ""
    said = capfd.readouterr()
    assert (said.out + said.err).count("no longer keeps") == 1


def test_a_message_that_is_too_large_is_stepped_over_after_some_tries(stage: Stage) -> None:
    labeler = stage.add(A)
    stage.publish(A, "one")
    labeler.send(labels_frame(2, {"filling": bytes(5 * 1024 * 1024)}), 2)
    stage.publish(A, "two")
    stage.start()
    stage.until_values("one", "two")
    stage.until_metric(1, "labels_refused_total", reason="unreceivable")


def test_labels_expire(stage: Stage) -> None:
    stage.add(A)
    stage.start()
    stage.publish(A, "kept", "gone long ago", exp="2026-01-02T00:00:00Z")
    stage.publish(A, "kept", exp="2999-01-01T00:00:00Z", cts="2026-01-02T00:00:00Z")
    stage.until_values("kept")
    stage.harness.until(lambda: stage.cursor(A) == 3)
    stage.connection.execute("UPDATE labels SET engine_expires = now()")
    stage.connection.execute("UPDATE labels SET neg = false")
    stage.until_values()
    stage.until_metric(2, "labels_expired_total")
    stage.until_metric(2, "labels_expired_before_total")


def test_labelers_that_declare_themselves_are_read_while_they_do(stage: Stage) -> None:
    for did in (A, B):
        stage.add(did)
        stage.publish(did, f"of {did[-1]}")
    stage.start(labelers=(A,), discover=True)
    stage.until_values("of a")
    stage.connection.execute(
        "INSERT INTO labeler_services (uri, cid, creator_did, policies, created_at)"
        " VALUES (%s, 'c', %s, '{}', now())",
        [f"at://{B}/app.bsky.labeler.service/self", B],
    )
    stage.until_values("of a", "of b")
    stage.until_metric(2, "labelers")
    stage.connection.execute("DELETE FROM labeler_services")
    stage.until_metric(1, "labelers")
    stage.publish(B, "unheard")
    stage.publish(A, "heard")
    stage.until_values("heard", "of a", "of b")


def test_what_a_purge_removed_is_read_again_when_the_labeler_is_back(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one")
    stage.start()
    stage.harness.until(lambda: stage.cursor(A) == 1)
    stage.connection.execute("INSERT INTO engine_takedowns VALUES (%s)", [A])
    stage.until_metric(0, "labelers")
    stage.connection.execute("DELETE FROM labels")
    stage.connection.execute("UPDATE engine_labelers SET cursor = NULL")
    stage.connection.execute("DELETE FROM engine_takedowns")
    stage.until_values("one")


def test_what_a_purge_removed_unnoticed_is_read_again(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one", "two")
    stage.start(look_seconds=3600.0)
    stage.harness.until(lambda: stage.cursor(A) == 2)
    stage.connection.execute("DELETE FROM labels")
    stage.connection.execute("UPDATE engine_labelers SET cursor = NULL")
    stage.publish(A, "three")
    stage.until_values("one", "three", "two")
    stage.harness.until(lambda: stage.cursor(A) == 3)


def test_addresses_inside_are_refused_unless_the_operator_allows_them(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one")
    stage.start(allow_private_hosts=False)
    stage.harness.until(lambda: "no service #atproto_labeler" in stage.problem(A))
    stage.document(A, endpoint="https://127.0.0.1")
    stage.harness.until(lambda: "no public host name" in stage.problem(A))
    assert stage.labelers[A].cursors == []


def test_one_that_sends_very_much_leaves_room_for_the_others(stage: Stage) -> None:
    many = 6_000
    stage.add(
        A,
        *(
            labels_frame(seq, stage_label)
            for seq, stage_label in enumerate(
                (LabelKey(A).make(A, SUBJECT, f"v{number:05}") for number in range(many)), start=1
            )
        ),
    )
    stage.add(B)
    stage.publish(B, "of b")
    stage.start()
    stage.until_values("of b", did=B)
    stage.harness.until(lambda: stage.cursor(A) == many)
    assert len(stage.values(A)) == many


def test_silence_is_no_failure(stage: Stage) -> None:
    stage.add(A)
    stage.publish(A, "one")
    stage.start(reader=ReaderSettings(Backoff(0.02, 0.1), 0.3, 1024 * 1024))
    stage.harness.until(lambda: len(stage.labelers[A].cursors) > 2)
    assert stage.labelers[A].cursors[:3] == [0, 1, 1]
    assert stage.problem(A) == ""
    stage.until_metric(0, "labeler_failures_total")


def test_a_database_that_is_away_holds_the_sockets_and_nothing_is_lost(
    stage: Stage,
) -> None:
    stage.add(A)
    stage.start()
    stage.publish(A, "one")
    stage.until_values("one")
    ended = stage.connection.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'skyshard label_client'"
    ).fetchone()
    assert ended == (1,)
    stage.publish(A, *(f"v{number:03}" for number in range(300)))
    stage.until_values("one", *(f"v{number:03}" for number in range(300)))
    stage.harness.until(lambda: stage.metric("database_outages_total") > 0)
