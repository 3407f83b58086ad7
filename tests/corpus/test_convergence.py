"""An index that begins in the middle of the capture, and fetches the recorded repositories.

The repositories are those that the servers gave out in the end, as they signed them: nothing is
made anew. What an account had brought along when it moved was never told by an event, and is
fetched as well: it is put before the history as if it had been told.
"""

import random
from functools import cache

import pytest

from actors.atproto import car, cbor, cid, frames, tid
from actors.atproto.events import Account, Commit
from actors.store.verify import verify
from tests.convergence import Expectation, History, decoded
from tests.corpus import files
from tests.corpus.test_reference import MIGRATED
from tests.histories import Sent
from tests.servers.network import recorded_repositories
from tests.servers.repository import Repository
from tests.settling import Engine
from tests.tables import read_tables
from tests.writing import make_index

EARLY = 1_600_000_000_000_000
OPS_IN_A_COMMIT = 100
CHUNK = 150


@cache
def repositories() -> dict[str, Repository]:
    """The repositories that are given out in the end, by DID."""
    found = {each.did: each for each in recorded_repositories()}
    for event in map(decoded, files.demo_frames()):
        if isinstance(event, Account) and event.did in found:
            found[event.did].status = None if event.active else event.status
    return found


def imported(repository: Repository) -> list[bytes]:
    """Commits, before all others, of the records that no event tells of."""
    told = {
        op.path
        for event in map(decoded, files.demo_frames())
        if isinstance(event, Commit) and event.did == repository.did
        for op in event.ops
    }
    left = [(path, name) for path, name in repository.records().items() if path not in told]
    assert left
    return [
        _commit(repository, left[start : start + OPS_IN_A_COMMIT], start)
        for start in range(0, len(left), OPS_IN_A_COMMIT)
    ]


def _commit(repository: Repository, records: list[tuple[str, bytes]], number: int) -> bytes:
    rev = tid.from_microseconds(EARLY + number, 0)
    signed = cbor.encode({**repository.signed, "rev": rev})
    name = cid.compute(signed)
    blocks = {name: signed, **{each: repository.blocks[each] for _, each in records}}
    return frames.encode(
        "#commit",
        {
            "seq": 1,
            "repo": repository.did,
            "rev": rev,
            "since": None,
            "commit": name,
            "time": "2020-09-13T12:26:40.000Z",
            "blocks": car.write(name, blocks),
            "ops": [{"action": "create", "path": path, "cid": each} for path, each in records],
            "blobs": [],
            "rebase": False,
            "tooBig": False,
        },
    )


@pytest.mark.parametrize("seed", range(1))
def test_the_second_half_of_the_capture_and_the_repositories_make_the_whole(
    database: str, seed: int
) -> None:
    every = files.demo_frames()
    half = len(every) // 2
    history = History([*imported(repositories()[MIGRATED]), *every[:half]])
    history.goes_on(every[half:])
    # What its server gives out is all that can be had.
    history.away |= _authors() - repositories().keys()
    chance = random.Random(seed)
    missing = [did for did, each in sorted(repositories().items()) if each.status is None]
    chance.shuffle(missing)
    make_index(database)
    with Engine(database, shards=2, seed=seed) as engine:
        stream = [Sent(getattr(decoded(frame), "did", ""), frame) for frame in every[half:]]
        for start in range(0, len(stream), CHUNK):
            engine.deliver(stream[start : start + CHUNK])
            for _ in range(min(chance.randrange(6), len(missing))):
                engine.fetch(repositories()[missing.pop()])
        for did in missing:
            engine.fetch(repositories()[did])
        engine.settle()
        for (did,), row in read_tables(database)["engine_repos"].items():
            if row["out_of_step"] and did not in history.away:
                engine.fetch(repositories()[did])
        engine.settle()
    # The clock of the script that wrote the records was many months behind that of the servers.
    expected = Expectation(history, dated_back=True)
    assert expected.differences(read_tables(database)) == []
    assert verify(database) == []


def _authors() -> set[str]:
    return {event.did for event in map(decoded, files.demo_frames()) if isinstance(event, Commit)}
