"""What could not be fetched of an account that was away is tried again when it is back."""

import psycopg
import pytest

from tests.author import Author, account_event
from tests.writing import begin_run, decoded, make_index, writer

COLUMNS = "kind, state, attempts, next_try <= now()"


@pytest.mark.parametrize(
    ("state", "reason"),
    [("failed", "RepoDeactivated"), ("waiting", "RepoNotFound"), ("done", "withheld")],
)
def test_an_account_that_its_host_serves_is_tried_again_whatever_was_given_up(
    database: str, state: str, reason: str
) -> None:
    conninfo, ann, ben = make_index(database), Author(1), Author(2)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO engine_incomplete (kind, key, did, cause, rank, state, attempts, next_try,"
            " reason) VALUES (%s, %s, %s, 'seen', 3, %s, 9, now() + interval '1 day', %s)",
            [
                *((kind, ann.did, ann.did, state, reason) for kind in ("repo", "profile")),
                ("profile", ben.did, ben.did, state, reason),
            ],
        )
        with writer(conninfo, begin_run(conninfo)) as writing:
            # That it was away was said before anybody listened here.
            writing.apply(decoded([account_event(ann.did, 1, None)]).changes)
            writing.apply(decoded([account_event(ben.did, 2, "suspended")]).changes)
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM engine_incomplete WHERE did = %s ORDER BY kind", [ann.did]
        ).fetchall()
        assert rows == [("profile", "waiting", 0, True), ("repo", "waiting", 0, True)]
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM engine_incomplete WHERE did = %s", [ben.did]
        ).fetchall()
        assert rows == [("profile", state, 9, False)]


def test_what_was_fetched_is_not_fetched_again_for_that(database: str) -> None:
    conninfo, ann = make_index(database), Author(1)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO engine_incomplete (kind, key, did, cause, rank, state, reason)"
            " VALUES ('repo', %s, %s, 'seen', 3, 'done', 'applied')",
            [ann.did, ann.did],
        )
        with writer(conninfo, begin_run(conninfo)) as writing:
            writing.apply(decoded([account_event(ann.did, 1, None)]).changes)
        state = connection.execute("SELECT state FROM engine_incomplete").fetchall()
    assert state == [("done",)]
