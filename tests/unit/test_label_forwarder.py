"""An outside label service is told of every label, in order, and nobody waits for it."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import faults
from tests.servers.http import HttpServer, Reply, Request
from tests.unit.labeler_stage import CLIENT, DIDS, Stage, label_stage

A = DIDS[0]


class Service(HttpServer):
    """Takes labels but those that it `refuses`, by value."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = ""

    def answer(self, request: Request) -> Reply:
        vals = [label["val"] for label in json.loads(request.body)["labels"]]
        return Reply(400 if self.refuses in vals else 200, b"{}")

    def told(self) -> list[tuple[str, bool]]:
        """Value and negation of all that was taken or refused."""
        return [(label["val"], label.get("neg", False)) for label in self.labels()]

    def labels(self) -> list[dict[str, Any]]:
        return [
            label for request in list(self.requests) for label in json.loads(request.body)["labels"]
        ]


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as made:
        yield made


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    with label_stage(database) as made:
        made.add(A)
        yield made


def test_labels_and_negations_are_told_as_they_were_signed(stage: Stage, service: Service) -> None:
    stage.start(forward_url=f"{service.url}/labels")
    made = stage.label(A, "one", cid="bafyreid7hzescfizm3pnc4t35sv34e235pv7i46irj5cxwhfhfe47zwiae")
    stage.labelers[A].publish(made)
    stage.harness.until(lambda: len(service.labels()) == 1)
    stage.publish(A, "one", neg=True, cts="2026-01-01T00:00:01Z", cid=made["cid"])
    stage.publish(A, "two", exp="2999-01-01T00:00:00Z")
    stage.harness.until(lambda: len(service.labels()) == 3)
    assert service.told() == [("one", False), ("one", True), ("two", False)]
    sig = base64.b64encode(made["sig"]).decode().rstrip("=")
    assert service.labels()[0] == {**made, "sig": {"$bytes": sig}}
    assert service.labels()[2]["exp"] == "2999-01-01T00:00:00Z"
    request = service.requests[0]
    assert (request.method, request.path) == ("POST", "/labels")
    assert request.headers["content-type"] == "application/json"
    stage.until_metric(3, "labels_forwarded_total")


def test_a_label_that_expires_is_told_as_it_was_signed(stage: Stage, service: Service) -> None:
    stage.start(forward_url=service.url)
    stage.publish(A, "one", exp="2999-01-01T00:00:00Z")
    stage.harness.until(lambda: len(service.labels()) == 1)
    stage.connection.execute("UPDATE labels SET engine_expires = now()")
    stage.harness.until(lambda: len(service.labels()) == 2)
    assert service.labels()[0] == service.labels()[1]


def test_while_the_service_is_away_labels_are_applied_and_then_it_is_told(
    stage: Stage, service: Service
) -> None:
    failing = service.fail(faults.status(503, times=2))
    stage.start(forward_url=service.url)
    stage.publish(A, *(f"v{number:02}" for number in range(30)))
    stage.harness.until(lambda: len(stage.values()) == 30)
    stage.harness.until(lambda: _position(stage) == 30)
    assert {val for val, _ in service.told()} == {f"v{number:02}" for number in range(30)}
    assert failing.fired == 2
    stage.until_metric(2, "label_forward_failures_total")


def test_after_a_crash_it_goes_on_with_what_was_not_told(stage: Stage, service: Service) -> None:
    stage.start(forward_url=service.url)
    stage.publish(A, "one")
    stage.harness.until(lambda: _position(stage) == 1)
    service.refuse()
    stage.publish(A, "two")
    stage.until_values("one", "two")
    stage.harness.kill(CLIENT)
    service.listen()
    stage.harness.restart(CLIENT)
    stage.harness.until(lambda: _position(stage) == 2)
    assert service.told() == [("one", False), ("two", False)]


def test_a_service_that_is_new_is_told_what_comes_from_now_on(
    stage: Stage, service: Service
) -> None:
    stage.start()
    stage.publish(A, "before")
    stage.until_values("before")
    stage.harness.kill(CLIENT)
    stage.start(forward_url=service.url)
    stage.publish(A, "after")
    stage.harness.until(lambda: service.told() == [("after", False)])


def test_one_label_that_the_service_refuses_is_left_out_alone(
    stage: Stage, service: Service
) -> None:
    service.refuses = "bad"
    stage.start(forward_url=service.url)
    vals = [*(f"v{number}" for number in range(5)), "bad", "last"]
    stage.labelers[A].publish(*(stage.label(A, val) for val in vals))
    stage.harness.until(lambda: _position(stage) == len(vals))
    taken = {
        label["val"]
        for request in list(service.requests)
        if "bad" not in str(request.body)
        for label in json.loads(request.body)["labels"]
    }
    assert taken == set(vals) - {"bad"}
    stage.until_metric(1, "labels_not_forwarded_total")


def test_what_lies_too_far_back_is_left_out_and_counted(stage: Stage, service: Service) -> None:
    stage.connection.execute("INSERT INTO engine_label_forwards VALUES (%s, 0)", [service.url])
    stage.connection.execute(
        "INSERT INTO label_events (label_uri, action) SELECT 'at://gone', 'created'"
        " FROM generate_series(1, 57)"
    )
    stage.start(forward_url=service.url, most_behind=50)
    stage.until_metric(7, "labels_not_forwarded_total")
    stage.harness.until(lambda: _position(stage) == 57)
    assert service.requests == []


def test_killed_between_the_answer_and_its_note_it_tells_that_again_and_loses_nothing(
    database: str, service: Service
) -> None:
    with label_stage(database, f"label_client.answered@{CLIENT}:2") as stage:
        stage.add(A)
        stage.start(forward_url=service.url)
        stage.publish(A, "one")
        stage.harness.until(lambda: _position(stage) == 1)
        stage.publish(A, "two")
        stage.harness.bury(CLIENT)
        assert _position(stage) == 1
        stage.publish(A, "three")
        stage.harness.restart(CLIENT)
        stage.harness.until(lambda: _position(stage) == 3)
    vals = [val for val, _ in service.told()]
    assert vals[:2] == ["one", "two"]
    assert vals.count("two") == 2
    assert set(vals) == {"one", "two", "three"}


def test_a_service_that_never_answers_holds_up_no_label(stage: Stage, service: Service) -> None:
    hanging = service.fail(faults.hang())
    stage.start(forward_url=service.url)
    stage.publish(A, "one")
    stage.harness.until(lambda: hanging.fired > 0)
    stage.publish(A, *(f"v{number:02}" for number in range(50)))
    stage.until_values("one", *(f"v{number:02}" for number in range(50)))
    assert _position(stage) == 0
    stage.harness.until(lambda: stage.metric("label_forward_behind") == 51)


def _position(stage: Stage) -> int:
    row = stage.connection.execute("SELECT event FROM engine_label_forwards").fetchone()
    return 0 if row is None else int(row[0])
