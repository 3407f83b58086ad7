"""A directory that is down for an hour: nothing is lost, it is left alone, then not run over."""

import pytest

from tests.virtual.bearing import attempts, check_pauses, check_rates
from tests.virtual.hosts import WELL, Behaviour, BlackHole, Refuses, Says, Unreachable
from tests.virtual.stage import Stage

HOUR = 3600.0
DOWN_AT = 2.0
# Its pauses are at most 15 minutes (a breaker's) and 5 (the resolver's own); then 10 a second.
BACK_IN = 1300.0


def down_for_an_hour(stage: Stage, behaviour: Behaviour) -> None:
    """Let the directory be down from soon after the start."""
    stage.people.directory.behaviour = lambda now: (
        behaviour if DOWN_AT <= now < DOWN_AT + HOUR else WELL
    )


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        pytest.param(Refuses(), "connect", id="refuses"),
        pytest.param(BlackHole(), "timeout", id="never answers"),
        pytest.param(Unreachable(), "connect", id="unreachable", marks=pytest.mark.soak),
        pytest.param(Says(502), "http_status", id="502", marks=pytest.mark.soak),
        pytest.param(
            Says(429, {"Retry-After": "600"}, 600.0),
            "http_status",
            id="asks for pauses",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_a_directory_down_for_an_hour_changes_no_handle_and_costs_no_attempt(
    database: str, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, outcome: str
) -> None:
    with Stage(database, monkeypatch) as stage:
        for number in range(40):
            stage.people.server(f"pds{number}.net", 2)
        everybody = stage.people.all
        old, new = everybody[::2], everybody[1::2]
        stage.known(*old, due_in=900.0)
        stage.user(*new)
        stage.out_of_step(*everybody[:10])
        down_for_an_hour(stage, behaviour)
        stage.start()

        stage.hours.pass_by(60.0)
        # Who is known, and whose server is up, is served meanwhile.
        assert {person.did for person in old} <= set(stage.profiles())
        early = stage.shown(*new)
        assert 0 < early < len(new), "it was to go down while the new ones are looked at"
        for _ in range(11):
            stage.hours.pass_by(300.0)
            assert stage.shown(*old) == len(old)
            assert stage.shown(*new) == early
        directory = stage.people.directory
        # Some to find out, and then one try (of two requests) for each pause.
        assert 5 <= attempts(directory, DOWN_AT, DOWN_AT + HOUR) <= 25
        waiting = {row for (kind, _), row in stage.queue().items() if kind == "profile"}
        assert waiting == {("waiting", 0, "server_unknown")}

        stage.hours.pass_by(DOWN_AT + HOUR + BACK_IN - stage.now())
        assert stage.shown(*everybody) == len(everybody)
        assert set(stage.profiles()) == {person.did for person in everybody}
        assert stage.queue() == {}
        assert stage.run("SELECT did FROM engine_repos WHERE out_of_step") == []
        check_rates(stage.internet.hosts.values())
        check_pauses([directory])

        stage.stop()
        counted = stage.figure("resolver", "outbound_requests_total", kind="plc", outcome=outcome)
        assert counted == attempts(directory, DOWN_AT, DOWN_AT + HOUR)
        assert stage.figure("resolver", "identity_resolutions_total", outcome="valid") == len(
            everybody
        )
