"""The synthetic network: what it sends is what a real one might send, and it can be proved."""

import hashlib
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import libipld
import pytest
from click.testing import CliRunner
from coincurve import PublicKey
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from actors import capture
from actors.atproto import cbor, commit, datamodel, datetimes, frames, mst
from actors.atproto.events import Account, Action, Commit, Event, Identity, Sync
from bench import network
from bench.network import Network

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


@cache
def made() -> tuple[tuple[bytes, ...], dict[str, dict[str, Any]]]:
    """A small signed network and its DID documents."""
    source = Network(seed=7, users=40)
    return tuple(source.events(3000)), dict(source.documents())


@cache
def large() -> tuple[Event, ...]:
    """A larger one without signatures."""
    return tuple(map(decoded, Network(seed=3, users=300, sign=False).events(20_000)))


def decoded(frame: bytes) -> Event:
    event = frames.decode(frame)
    assert event is not None
    return event


def verified(signed: commit.SignedCommit, key: bytes) -> bool:
    fields = cbor.decode(signed.block)
    del fields["sig"]
    s = int.from_bytes(signed.sig[32:], "big")
    digest = hashlib.sha256(cbor.encode(fields)).digest()
    der = cdata_to_der(deserialize_compact(signed.sig))
    return s <= HALF_ORDER and PublicKey(key).verify(der, digest, hasher=None)


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others() -> None:
    first, again = (list(Network(seed=7, users=40).events(500)) for _ in range(2))
    assert first == again
    assert first != list(Network(seed=8, users=40).events(500))


def test_a_network_read_in_parts_loses_nothing_between_them() -> None:
    source = Network(seed=7, users=40)
    seqs = [frames.peek(frame).seq for part in (7, 1, 50) for frame in source.events(part)]
    assert seqs == list(range(1, 59))


def test_every_commit_is_signed_by_the_key_of_the_did_document() -> None:
    sent, documents = made()
    keys = {}
    for did, document in documents.items():
        assert document["id"] == did
        _, key = libipld.decode_multibase(document["verificationMethod"][0]["publicKeyMultibase"])
        assert key[:2] == b"\xe7\x01"
        keys[did] = key[2:]
    checked = 0
    for event in map(decoded, sent[:600]):
        if isinstance(event, Commit):
            assert verified(commit.open_commit(event).signed, keys[event.did])
            checked += 1
    assert checked > 300


def test_commits_of_an_account_chain_and_each_can_be_undone_on_its_own_blocks() -> None:
    last: dict[str, tuple[str, bytes]] = {}
    several = 0
    for event in map(decoded, made()[0]):
        if not isinstance(event, Commit):
            continue
        opened = commit.open_commit(event)
        before = last.get(event.did)
        assert (event.since, event.prev_data) == (before or (None, None))
        assert before is None or event.rev > before[0]
        last[event.did] = (event.rev, opened.signed.data)
        tree = mst.Tree.load(opened.signed.data, opened.blocks)
        # Deletions first, then by path: the order in which a verifier undoes them.
        for op in sorted(
            opened.ops, key=lambda op: (op.action != "delete", op.collection, op.rkey)
        ):
            key = f"{op.collection}/{op.rkey}".encode()
            if op.action is Action.CREATE:
                assert op.prev is None
                assert tree.delete(key) == op.cid
            else:
                assert op.prev is not None
                assert tree.put(key, op.prev) == op.cid
        assert tree.seal()[0] == (before[1] if before else mst.Tree().seal()[0])
        several += len(opened.ops) > 1
    assert several > 5


def test_every_record_is_there_and_follows_the_data_model() -> None:
    for event in large():
        if isinstance(event, Commit):
            for op in commit.open_commit(event).ops:
                assert op.problem is None
                if op.record is not None:
                    record, sanitised = datamodel.to_data(op.record)
                    assert record["$type"] == op.collection
                    assert not sanitised


def test_a_new_account_comes_as_real_ones_do() -> None:
    kinds = [type(decoded(frame)) for frame in made()[0][:5]]
    assert kinds == [Identity, Account, Commit, Sync, Commit]
    first = decoded(made()[0][2])
    assert isinstance(first, Commit)
    assert (first.ops, first.since, first.prev_data) == ((), None, None)
    sync = decoded(made()[0][3])
    assert isinstance(sync, Sync)
    assert commit.open_sync(sync).rev == first.rev


def test_sequence_and_time_go_forward_from_a_fixed_start() -> None:
    events = large()
    assert [getattr(event, "seq", None) for event in events] == list(range(1, 20_001))
    times = [datetimes.to_microseconds(event.time) for event in events if isinstance(event, Commit)]
    assert times == sorted(times)
    assert 0 < times[0] - network.START < 1_000_000


def test_the_mix_is_about_that_of_the_real_network() -> None:
    created: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    replies = quotes = 0
    subjects: Counter[str] = Counter()
    for event in large():
        if isinstance(event, Commit):
            for op in commit.open_commit(event).ops:
                actions[op.action] += 1
                if op.action is Action.CREATE and op.record is not None:
                    created[op.collection] += 1
                    record, _ = datamodel.to_data(op.record)
                    replies += "reply" in record
                    quotes += record.get("embed", {}).get("$type") == "app.bsky.embed.record"
                    if op.collection == "app.bsky.feed.like":
                        subjects[record["subject"]["uri"]] += 1
    total = created.total()
    posts = created["app.bsky.feed.post"]
    assert 0.42 < created["app.bsky.feed.like"] / total < 0.52
    assert 0.22 < posts / total < 0.30
    assert 0.10 < created["app.bsky.graph.follow"] / total < 0.15
    assert 0.10 < created["app.bsky.feed.repost"] / total < 0.14
    assert 0.35 < replies / posts < 0.45
    assert quotes > 100
    assert 0.01 < (actions["delete"] + actions["update"]) / actions.total() < 0.03
    assert min(actions["delete"], actions["update"]) > 20
    # A hundredth of the posts gets more than a tenth of the likes.
    top = sum(count for _, count in subjects.most_common(len(subjects) // 100))
    assert top > sum(subjects.values()) / 10


def test_nobody_likes_one_post_twice() -> None:
    living: dict[tuple[str, str], str] = {}
    held: dict[tuple[str, str], str] = {}
    for event in large():
        if not isinstance(event, Commit):
            continue
        for op in commit.open_commit(event).ops:
            if op.collection != "app.bsky.feed.like":
                continue
            where = (event.did, op.rkey)
            subject = held.pop(where, None)
            if subject is not None:
                del living[event.did, subject]
            if op.record is not None:
                subject = datamodel.to_data(op.record)[0]["subject"]["uri"]
                assert (event.did, subject) not in living
                living[event.did, subject], held[where] = op.rkey, subject


def test_every_collection_and_every_status_turns_up_in_a_long_run() -> None:
    collections, statuses, chained = set(), set(), 0
    for event in map(decoded, Network(seed=5, users=100, sign=False).events(30_000)):
        if isinstance(event, Commit):
            collections |= {op.collection for op in event.ops}
            chained += any(op.action is Action.UPDATE and op.prev is None for op in event.ops)
        elif isinstance(event, Account):
            statuses.add(event.status)
    assert collections == set(network._WEIGHTS)
    assert statuses == {None, "deactivated", "takendown", "deleted"}
    assert chained > 3


def test_an_account_that_wrote_its_share_makes_room_for_a_new_one() -> None:
    source = Network(seed=1, users=5, sign=False, records_per_account=20)
    written: Counter[str] = Counter()
    for event in map(decoded, source.events(2000)):
        if isinstance(event, Commit):
            written[event.did] += len(event.ops)
    assert len(written) > 50
    assert max(written.values()) < 60


def test_a_network_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="two users"):
        Network(users=1)


def test_the_command_writes_a_capture_and_the_documents(tmp_path: Path) -> None:
    out, documents = tmp_path / "n.frames.gz", tmp_path / "dids.json"
    arguments = ["--events", "300", "--seed", "7", "--users", "40", "--out", str(out)]
    result = CliRunner().invoke(network.main, [*arguments, "--documents", str(documents)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["events"] == 300
    sent = list(capture.read(out))
    assert sent == list(Network(seed=7, users=40).events(300))
    known = json.loads(documents.read_text())
    assert {frames.peek(frame).did for frame in sent} <= set(known)
