"""What a fetcher that died left behind is taken up, or let go."""

import pytest

from tests.fetching import Stage
from tests.servers import faults
from tests.servers.pds import Pds
from tests.unit.test_pds_fetcher import stage

__all__ = ["stage"]  # a fixture


@pytest.mark.parametrize("then", ["its server is dead", "it has no server", "it is withheld"])
def test_events_that_a_dead_fetcher_had_wait_are_let_go_though_nothing_can_be_fetched(
    stage: Stage, then: str
) -> None:
    repository, *_ = stage.accounts()
    did = repository.did
    with Pds([repository]) as server:
        server.fail(faults.status(503))
        stage.run("UPDATE engine_identities SET pds = %s WHERE did = %s", server.url, did)
        if then == "it has no server":
            stage.run("UPDATE engine_identities SET pds = NULL WHERE did = %s", did)
        elif then == "it is withheld":
            stage.run(
                "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
                did,
            )
        stage.out_of_step(did)
        stage.run("INSERT INTO engine_parked (did, reason) VALUES (%s, 'resync')", did)
        stage.run(
            "INSERT INTO engine_incomplete (kind, key, did, cause, rank, attempts)"
            " VALUES ('repo', %s, %s, 'out_of_step', 0, 1)",
            *(did, did),
        )
        with stage.fetcher(records=False) as harness:
            harness.until(lambda: stage.run("SELECT FROM engine_parked") == [])
    rows = stage.run("SELECT out_of_step FROM engine_repos WHERE did = %s", did)
    assert rows == [(True,)]
