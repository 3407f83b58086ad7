"""With everything verified, a corrupted byte is refused, or changes nothing that is applied."""

import random
from collections import Counter
from typing import Any

import libipld
import pytest

from actors.atproto import cbor
from actors.capture import DEMO, read
from actors.decoder import Batch
from actors.store.batch import AppliedCommit, Change, SyncState
from actors.verification import is_signed
from bench.network import Network
from tests.corpus.files import DATA

# What each check is for; a corruption is caught by some check of these.
REASONS = {
    "bad_frame",
    "wrong_type",
    "missing_field",
    "bad_did",
    "bad_rev",
    "bad_time",
    "bad_seq",
    "bad_op",
    "bad_path",
    "bad_cid",
    "bad_car",
    "hash_mismatch",
    "commit_missing",
    "commit_mismatch",
    "bad_commit",
    "ops_do_not_chain",
    "bad_mst",
    "mst_block_missing",
    "tree_mismatch",
    "rev_in_future",
    "too_big",
    "too_many_items",
    "bad_cbor",
    "invalid_utf8",
}


def signed_commits(amount: int) -> list[tuple[bytes, str]]:
    """Frames of commits, and the key that signed each."""
    network = Network(seed=7, users=20)
    frames = list(network.events(amount * 2))
    keys = {did: multikey(document) for did, document in network.documents()}
    found = [
        (frame, keys[change.did])
        for frame in frames
        for change in decoded(frame).changes
        if isinstance(change, AppliedCommit) and change.did in keys
    ]
    assert len(found) >= amount, "the network made too few commits"
    return found[:amount]


def multikey(document: dict[str, Any]) -> str:
    for method in document["verificationMethod"]:
        if method["id"].endswith("#atproto"):
            text: str = method["publicKeyMultibase"]
            return text
    raise AssertionError(document)


def decoded(frame: bytes) -> Batch:
    batch = Batch(signatures=True, trees=True)
    batch.add(frame)
    return batch


def applied(changes: list[Change], key: str) -> list[Any]:
    """What would be written, of those changes whose signature holds."""
    return [
        (change.did, change.rev, change.data, [tuple(each) for each in change.operations])
        for change in changes
        if isinstance(change, AppliedCommit) and is_signed(change, key)
    ]


def without_hints(rows: list[Any]) -> list[Any]:
    """Without what no signature covers: the moment and number that the relay gives an event."""
    return [
        (did, rev, data, [(each[0].table, *each[1:4]) for each in operations])
        for did, rev, data, operations in rows
    ]


def corrupt(frame: bytes, key: str, places: list[int], chance: random.Random) -> Counter[str]:
    wanted = without_hints(applied(decoded(frame).changes, key))
    assert wanted, "an intact commit is applied"
    seen: Counter[str] = Counter()
    for place in places:
        broken = bytearray(frame)
        broken[place] ^= 1 << chance.randrange(8)
        batch = decoded(bytes(broken))
        rows = without_hints(applied(batch.changes, key))
        if not rows:
            seen[batch.drops[0].reason if batch.drops else "unsigned or unknown"] += 1
            continue
        seen["nothing"] += 1
        assert rows == wanted, f"byte {place} of {len(frame)}"
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_a_corrupted_byte_is_refused_or_changes_nothing(seed: int) -> None:
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    commits = signed_commits(120)
    for frame, key in commits:
        seen += corrupt(frame, key, chance.sample(range(len(frame)), 25), chance)
    assert set(seen) <= REASONS | {"nothing", "unsigned or unknown"}, seen
    assert seen["hash_mismatch"] > 100


def test_every_byte_of_some_commits_is_covered() -> None:
    chance = random.Random(1)
    for frame, key in signed_commits(12)[::4]:
        corrupt(frame, key, list(range(len(frame))), chance)


@pytest.mark.soak
def test_every_byte_of_a_thousand_commits_is_covered() -> None:
    chance = random.Random(2)
    for frame, key in signed_commits(1_000):
        corrupt(frame, key, list(range(len(frame))), chance)


def changed(frame: bytes, **fields: Any) -> bytes:
    header, body = libipld.decode_dag_cbor_multi(frame)
    return cbor.encode(header) + cbor.encode({**body, **fields})


def test_each_lie_is_caught_by_the_check_that_is_meant_for_it() -> None:
    frame, key = signed_commits(40)[-1]
    _header, body = libipld.decode_dag_cbor_multi(frame)
    lies = {
        "commit_mismatch": {"rev": "3zzzzzzzzzz22"},
        "tree_mismatch": {"prevData": body["commit"]},
        "bad_did": {"repo": "alice.test"},
        "bad_car": {"blocks": body["blocks"][:-1]},
        "bad_time": {"time": "yesterday"},
    }
    for reason, fields in lies.items():
        batch = decoded(changed(frame, **fields))
        assert [drop.reason for drop in batch.drops] == [reason]
    unsigned = decoded(changed(frame, ops=[]))
    assert [drop.reason for drop in unsigned.drops] == ["tree_mismatch"]
    (change,) = decoded(frame).changes
    assert isinstance(change, AppliedCommit)
    other = next(other for _frame, other in signed_commits(40) if other != key)
    assert is_signed(change, key)
    assert not is_signed(change, other)


@pytest.mark.parametrize("path", [DEMO, DATA / "network-replay.frames.gz"], ids=str)
def test_no_commit_of_a_capture_is_refused(path: Any) -> None:
    refused: Counter[str] = Counter()
    commits = 0
    for frame in read(path):
        batch = decoded(frame)
        refused += Counter(drop.reason for drop in batch.drops)
        commits += sum(isinstance(change, AppliedCommit | SyncState) for change in batch.changes)
    assert not refused
    assert commits > 3_500
