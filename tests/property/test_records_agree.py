"""Spoilt records: the decoder takes and refuses what the reference indexer takes and refuses."""

from collections import Counter

import pytest

from actors.decoder import Batch
from actors.records.profile import PROFILE
from actors.store.batch import AppliedCommit
from tests.author import TIME, Author
from tests.histories import History
from tests.reference import Reference
from tests.writing import decoded, reference_of

# One program says more exactly than the other why there is no type.
_SAME = {"missing_type": "type_mismatch"}


def taken(batch: Batch) -> set[str]:
    return {
        operation.uri
        for change in batch.changes
        if isinstance(change, AppliedCommit)
        for operation in change.operations
        if operation.row is not None
    }


def dropped(batch: Batch) -> Counter[str]:
    drops = list(batch.drops)
    for change in batch.changes:
        if isinstance(change, AppliedCommit):
            drops += change.drops
    return Counter(_SAME.get(str(drop.reason), str(drop.reason)) for drop in drops)


def both(frame: bytes) -> tuple[Batch, Reference]:
    batch, reference = decoded([frame]), reference_of([frame])
    assert taken(batch) == set(reference.records)
    assert batch.authors | batch.subjects == reference.users
    assert sum(dropped(batch).values()) == sum(reference.drops.values())
    return batch, reference


@pytest.mark.parametrize("seed", range(5))
def test_spoilt_records_are_dropped_and_their_siblings_taken(seed: int) -> None:
    refused, kept = 0, 0
    for sent in History(seed, spoilt=0.9).stream:
        batch, _ = both(sent.frame)
        refused += sum(dropped(batch).values())
        kept += len(taken(batch))
    assert refused > 100
    assert kept > 100


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_any_spoilt_record_is_judged_as_by_the_reference(seed: int) -> None:
    for sent in History(seed, spoilt=0.9).stream:
        both(sent.frame)


def test_null_counts_as_absent() -> None:
    author = Author(1)
    label = {"src": author.did, "uri": author.did, "val": "v", "cts": TIME}
    batch, _ = both(author.creates("com.atproto.label.label/a", **label, neg=None))
    assert taken(batch)


@pytest.mark.parametrize("rkey", ["a b", "", "a/b", "a#b"])
def test_a_list_items_list_must_be_the_uri_of_a_record(rkey: str) -> None:
    author = Author(1)
    path = "app.bsky.graph.listitem/a"
    list_uri = author.uri(f"app.bsky.graph.list/{rkey}")
    batch, _ = both(author.creates(path, list=list_uri, subject=author.did))
    assert dropped(batch) == {"invalid_record": 1}


def test_a_record_whose_own_uri_is_too_long_for_a_key_is_dropped() -> None:
    author = Author(1, did="did:x:" + "d" * 1500)
    short = author.put("app.bsky.graph.list/a", name="n", purpose="p")
    long = author.put(f"app.bsky.graph.list/{'r' * 500}", name="n", purpose="p")
    batch, reference = both(author.frame(short, long))
    assert dropped(batch) == reference.drops == {"key_too_long": 1}
    assert taken(batch) == {author.uri("app.bsky.graph.list/a")}


def test_a_profile_dated_ahead_of_its_commit_has_no_date_of_its_own() -> None:
    author = Author(1)
    frame = author.creates("app.bsky.actor.profile/self", createdAt="2199-01-01T00:00:00Z")
    (change,) = decoded([frame]).changes
    assert isinstance(change, AppliedCommit)
    row = change.operations[0].row
    assert row is not None
    assert row.values[PROFILE.columns.index("created_at")] == 0
