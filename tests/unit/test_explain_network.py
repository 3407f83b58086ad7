"""`run.py explain` knows what waits for the network on behalf of a record or an account."""

import pytest

from actors.store import incomplete
from tests.unit.test_explain import Index, index

__all__ = ["index"]  # a fixture


def park(index: Index, reason: str, events: int = 2) -> None:
    did = index.ann.did
    index.execute(
        "INSERT INTO engine_parked (did, reason, bytes) VALUES (%s, %s, %s)", did, reason, events
    )
    for number in range(events):
        index.execute(
            "INSERT INTO engine_resync_buffer (did, host, body) VALUES (%s, 'h', %s)",
            did,
            bytes([number]),
        )


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("resync", "until its author's repository is fetched"),
        ("no_key", "until its author's key is known"),
        ("wrong_key", "until its author's key is looked up again"),
    ],
)
def test_a_record_that_waits_for_its_author_is_said_to_wait(
    index: Index, reason: str, said: str
) -> None:
    park(index, reason)
    told = index.told(index.post)
    assert told["known"]
    assert told["verdict"].endswith(f"2 events wait {said}")
    assert f"2 live events of it wait ({reason})" in index.explain(index.ann.did).out
    assert index.told(index.ann.did)["known"]


def test_what_is_indexed_is_said_to_be_though_its_author_waits(index: Index) -> None:
    index.posts()
    park(index, "resync")
    assert index.told(index.post)["verdict"] == "indexed in posts"
    assert "2 live events of it wait (resync)" in index.explain(index.post).out


@pytest.mark.parametrize(
    ("state", "said"), [("waiting", "to be fetched"), ("failed", "could not be fetched")]
)
def test_a_record_that_is_asked_for_tells_of_its_tries(index: Index, state: str, said: str) -> None:
    index.execute(
        "INSERT INTO engine_incomplete (kind, key, did, cause, rank, state, attempts, reason)"
        " VALUES (%s, %s, %s, %s, 1, %s, 3, 'timeout')",
        *(incomplete.RECORD, index.post, index.ann.did, incomplete.PENDING, state),
    )
    told = index.told(index.post)
    assert told["known"]
    assert told["verdict"] == f"not indexed: {said} (3 attempts, timeout)"
    assert f"fetch of record {index.post} (pending): {state}" in index.explain(index.post).out
    other = index.told(index.ann.uri("app.bsky.feed.post/other"))
    assert not other["known"]


def test_a_repository_to_be_fetched_and_an_identity_are_told_of_the_account(index: Index) -> None:
    index.posts()
    did = index.ann.did
    index.execute(
        "INSERT INTO engine_incomplete (kind, key, did, cause, rank) VALUES ('repo', %s, %s,"
        " 'backfill', 3)",
        *(did, did),
    )
    index.execute(
        "INSERT INTO engine_identities (did, plc, pds, problem, checked_at)"
        " VALUES (%s, true, 'https://pds.example', 'no key', now())"
        " ON CONFLICT (did) DO UPDATE SET pds = excluded.pds, problem = excluded.problem,"
        " checked_at = excluded.checked_at",
        did,
    )
    out = index.explain(did).out
    assert f"fetch of repo {did} (backfill): waiting, 0 attempts, next at " in out
    assert "server https://pds.example, key not known, no key" in out


def test_who_is_left_out_of_a_personal_index_is_said_to_be(index: Index) -> None:
    index.execute("INSERT INTO engine_personal (did) VALUES (%s)", index.ben.did)
    told = index.told(index.post)
    assert told["verdict"] == "not indexed: its author is none of those whom this index is of"
    index.execute("INSERT INTO engine_personal (did) VALUES (%s)", index.ann.did)
    assert index.told(index.post)["verdict"] == "not indexed: no commit of its author has come"
