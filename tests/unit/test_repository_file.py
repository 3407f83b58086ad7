"""Files of whole repositories: real ones are read in order, broken and hostile ones refused."""

import hashlib
import random
import tempfile
from collections.abc import Iterator
from typing import IO

import pytest

from actors.atproto import car, cbor, cid, mst, tid
from actors.atproto.errors import Reason, WireError
from actors.atproto.multikey import Curve, PublicKey
from actors.fetching import proof, repo_file
from actors.fetching.block_index import BlockIndex
from actors.fetching.car_file import CarFile
from actors.fetching.repo_file import RepoFile
from actors.messages import RepoSlice
from bench.network import Network
from bench.network_account import did_of, key_of
from tests.corpus.files import repositories
from tests.servers.network import pds_of
from tests.servers.repository import Repository

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
NOW = 1_800_000_000.0
REV = tid.from_microseconds(int((NOW - 10) * 1_000_000), 3)
POST = "app.bsky.feed.post"
LIMIT = 1 << 30
HELD: list[IO[bytes]] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while HELD:
        HELD.pop().close()


def block_of(number: int) -> bytes:
    return cbor.encode({"$type": POST, "text": f"number {number}"})


def made(
    records: dict[str, bytes], *, did: str = DID, rev: str = REV, data: bytes | None = None
) -> tuple[bytes, dict[bytes, bytes]]:
    """A repository as its root and its blocks; `data` in place of the root of its tree."""
    tree = mst.Tree.build((path.encode(), cid.compute(block)) for path, block in records.items())
    root, blocks = tree.seal()
    fields = {"did": did, "version": 3, "data": data or root, "rev": rev, "prev": None}
    head = cbor.encode({**fields, "sig": bytes(64)})
    blocks = {cid.compute(head): head, **blocks}
    blocks |= {cid.compute(block): block for block in records.values()}
    return cid.compute(head), blocks


def some(count: int) -> dict[str, bytes]:
    return {f"{POST}/{number:06}": block_of(number) for number in range(count)}


def opened(data: bytes, *, pieces: int = 1000, max_blocks: int = 100_000) -> CarFile:
    """The file of a CAR that came in pieces of this size."""
    held = tempfile.TemporaryFile()  # noqa: SIM115 - `closing` does it
    HELD.append(held)
    file = CarFile(held, max_blocks)
    for at in range(0, len(data), pieces):
        file.feed(data[at : at + pieces])
    file.end()
    return file


def read(
    data: bytes,
    *,
    did: str = DID,
    now: float = NOW,
    key: PublicKey | None = None,
    max_bytes: int = LIMIT,
    **more: int,
) -> RepoFile:
    return RepoFile(opened(data, **more), did, now, key, max_bytes)


def whole(file: RepoFile) -> list[RepoSlice]:
    *_, last = file.check()
    slices = list(file.slices())
    assert sum(len(part.records) for part in slices) == last.records - last.skipped
    return slices


def refused(reason: Reason, data: bytes, **more: object) -> WireError:
    with pytest.raises(WireError) as caught:
        list(read(data, **more).check())  # type: ignore[arg-type]
    assert caught.value.reason is reason, caught.value
    return caught.value


def paths_of(slices: list[RepoSlice]) -> list[str]:
    return [record.path for part in slices for record in part.records]


@pytest.mark.parametrize("pieces", [1, 37, 4096, 1 << 20])
def test_a_repository_is_read_in_the_order_of_its_paths_however_it_came(pieces: int) -> None:
    records = some(300)
    root, blocks = made(records)
    shuffled = list(blocks.items())
    random.Random(pieces).shuffle(shuffled)
    slices = whole(read(car.write(root, dict(shuffled)), pieces=pieces))
    assert paths_of(slices) == sorted(records)
    assert all(
        records[record.path] == record.record and cid.compute(record.record) == record.cid
        for part in slices
        for record in part.records
    )


def test_slices_are_bounded_and_follow_each_other_without_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repo_file, "SLICE_RECORDS", 7)
    monkeypatch.setattr(repo_file, "SLICE_BYTES", 200)
    root, blocks = made(some(100))
    slices = whole(read(car.write(root, blocks)))
    assert slices[0].after == ""
    assert slices[-1].until is None
    assert [part.until for part in slices[:-1]] == [part.after for part in slices[1:]]
    for part in slices:
        assert all(part.after < record.path for record in part.records)
        assert all(part.until is None or record.path <= part.until for record in part.records)
        assert 0 < sum(len(record.record) for record in part.records) <= 200


def test_an_empty_repository_is_one_slice_without_records() -> None:
    root, blocks = made({})
    assert whole(read(car.write(root, blocks))) == [RepoSlice(DID, REV, "", None, [])]


@pytest.mark.parametrize("name", sorted(repositories()))
def test_every_recorded_repository_is_read_whole(name: str) -> None:
    data = repositories()[name]
    repository = Repository.of_car(data)
    slices = whole(read(data, did=repository.did))
    assert paths_of(slices) == list(repository.records())
    assert {part.rev for part in slices} == {repository.rev}


def key_for(seed: int, index: int) -> PublicKey:
    return PublicKey(Curve.K256, key_of(seed, index).public_key.format())


def signed_repositories(seed: int = 1) -> Iterator[tuple[int, Repository]]:
    server = pds_of(Network(seed, 30).events(600))
    for index in range(30):
        held = server.repositories.get(did_of(seed, index))
        if held is not None and held.head:
            yield index, held


def test_a_signature_is_demanded_of_the_key_that_is_known() -> None:
    seen = 0
    for index, held in signed_repositories():
        data = held.whole()
        whole(read(data, did=held.did, key=key_for(1, index)))
        refused(Reason.BAD_SIGNATURE, data, did=held.did, key=key_for(1, index + 1))
        seen += 1
    assert seen > 3


def test_a_repository_of_another_account_or_of_the_future_is_refused() -> None:
    root, blocks = made(some(3))
    data = car.write(root, blocks)
    refused(Reason.COMMIT_MISMATCH, data, did="did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
    refused(Reason.REV_IN_FUTURE, data, now=NOW - 400)
    whole(read(data, now=NOW - 200))
    root, blocks = made(some(3), rev="not a tid")
    refused(Reason.BAD_REV, car.write(root, blocks))


def test_what_is_cut_off_anywhere_is_refused() -> None:
    root, blocks = made(some(4))
    data = car.write(root, blocks)
    for end in range(len(data)):
        with pytest.raises(WireError):
            list(read(data[:end]).check())


def test_a_byte_that_is_another_is_found() -> None:
    root, blocks = made(some(4))
    data = car.write(root, blocks)
    for at in range(len(data)):
        bent = bytearray(data)
        bent[at] ^= 1
        try:
            slices = whole(read(bytes(bent)))
        except WireError:
            continue
        raise AssertionError(f"byte {at} may be anything: {slices}")


def test_a_block_that_is_missing_spoils_the_whole() -> None:
    root, blocks = made(some(60))
    for name in blocks:
        rest = {held: block for held, block in blocks.items() if held != name}
        wanted = (
            Reason.COMMIT_MISSING,
            Reason.MST_BLOCK_MISSING,
            Reason.RECORD_MISSING,
        )
        with pytest.raises(WireError) as caught:
            list(read(car.write(root, rest)).check())
        assert caught.value.reason in wanted


def test_duplicates_and_blocks_that_nothing_leads_to_do_no_harm() -> None:
    root, blocks = made(some(20))
    data = car.write(root, blocks)
    more = car.write(root, {**blocks, cid.compute(b"\x01"): b"\x01"})
    plain = whole(read(data))
    header = len(car.write(root, {}))
    assert whole(read(more + more[header:])) == plain


def bent_tree(node: mst.Node, *below: mst.Node) -> bytes:
    """A repository with this node as the root of its tree."""
    blocks = {cid.compute(each.encode()): each.encode() for each in (node, *below)}
    root, more = made({}, data=cid.compute(node.encode()))
    record = block_of(1)
    return car.write(root, {**more, **blocks, cid.compute(record): record})


def keys_of(layer: int, count: int, start: str = "") -> list[bytes]:
    """Keys of one layer, in order."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = f"{POST}/{start}{number:06}".encode()
        if mst.layer_of(key) == layer:
            found.append(key)
        number += 1
    return found


VALUE = cid.compute(block_of(1))


def leaf(*keys: bytes, layer: int = 0) -> mst.Node:
    node = mst.Node(layer, list(keys), [VALUE] * len(keys), [None] * (len(keys) + 1))
    node.cid = cid.compute(node.encode())
    return node


def test_keys_that_are_out_of_order_twice_there_or_of_another_layer_are_refused() -> None:
    first, second = keys_of(0, 2)
    above = keys_of(1, 1)[0]
    below = leaf(first)
    whole_tree = mst.Node(1, [above], [VALUE], [below if first < above else None, None])
    assert list(read(bent_tree(whole_tree, below)).check())
    refused(Reason.BAD_MST, bent_tree(leaf(second, first)))
    refused(Reason.BAD_MST, bent_tree(leaf(first, first)))
    refused(Reason.BAD_MST, bent_tree(leaf(first, above)))
    # The same subtree twice, and a key of a subtree that belongs before the node's own.
    twice = mst.Node(1, [above], [VALUE], [below, below])
    refused(Reason.BAD_MST, bent_tree(twice, below))
    wrong = leaf(first)
    behind = mst.Node(1, [keys_of(1, 1, "z")[0]], [VALUE], [None, wrong])
    refused(Reason.BAD_MST, bent_tree(behind, wrong))


def test_nodes_without_keys_lead_nowhere_for_long() -> None:
    empty = mst.Node(0, [], [], [None])
    empty.cid = cid.compute(empty.encode())
    refused(Reason.BAD_MST, bent_tree(mst.Node(1, keys_of(1, 1), [VALUE], [empty, None]), empty))
    # A root without keys above another.
    low = leaf(*keys_of(0, 1))
    refused(Reason.BAD_MST, bent_tree(mst.Node(1, [], [], [low]), low))
    # A chain that is deeper than its layers are.
    chain = [leaf(*keys_of(0, 1))]
    for _ in range(5):
        above = mst.Node(9, [], [], [chain[-1]])
        above.cid = cid.compute(above.encode())
        chain.append(above)
    top = mst.Node(1, keys_of(1, 1), [VALUE], [chain[-1], None])
    refused(Reason.BAD_MST, bent_tree(top, *chain))


def test_a_node_of_very_many_entries_is_refused_before_it_is_made() -> None:
    entry = {"p": 0, "k": b"a", "v": VALUE, "t": None}
    block = cbor.encode({"l": None, "e": [entry] * 20_000})
    root, more = made({}, data=cid.compute(block))
    refused(Reason.BAD_MST, car.write(root, {**more, cid.compute(block): block}))


def test_one_block_under_many_paths_counts_as_often_as_it_is_named() -> None:
    large = cbor.encode({"$type": POST, "text": "x" * 50_000})
    root, blocks = made({f"{POST}/{number}": large for number in range(40)})
    data = car.write(root, blocks)
    assert len(data) < 100_000
    refused(Reason.RECORDS_TOO_LARGE, data, max_bytes=1_000_000)
    whole(read(data, max_bytes=3_000_000))


def test_what_cannot_be_indexed_is_left_out_and_counted() -> None:
    huge = cbor.encode({"$type": POST, "text": "x" * 1_000_001})
    records = {**some(2), f"{POST}/huge": huge, "no path at all": block_of(7)}
    root, blocks = made(records)
    file = read(car.write(root, blocks))
    *_, contents = file.check()
    assert contents == (4, 2)
    assert paths_of(list(file.slices())) == sorted(some(2))


def test_blocks_and_their_sizes_are_bounded() -> None:
    root, blocks = made(some(50))
    refused(Reason.TOO_MANY_ITEMS, car.write(root, blocks), max_blocks=20)
    large = bytes(2_000_001)
    refused(Reason.BAD_CAR, car.write(root, {**blocks, cid.compute(large): large}))
    header = car.write(root, {})
    refused(Reason.BAD_CAR, header + b"\xff" * 10)
    refused(Reason.BAD_CAR, b"\xff\xff\xff\x0f" + b"x" * 100_000)


def test_the_index_tells_apart_what_begins_alike() -> None:
    index = BlockIndex()
    digests = [hashlib.sha256(bytes((number,))).digest() for number in range(200)]
    for number, digest in enumerate(digests):
        index.add(digest, number * 1000, number)
    alike = digests[3][:9] + bytes(23)
    index.add(alike, 7, 7)
    assert sorted(index.places(digests[3])) == [(7, 7), (3000, 3)]
    assert list(index.places(digests[9])) == [(9000, 9)]
    assert list(index.places(hashlib.sha256(b"other").digest())) == []
    assert len(index) == 201


def test_a_proof_shows_a_record_or_that_there_is_none() -> None:
    for index, held in signed_repositories():
        key = key_for(1, index)
        now = tid.to_microseconds(held.rev) / 1_000_000
        for path, name in held.records().items():
            shown = proof.read(held.proof(path), held.did, path, now, key)
            assert shown == (held.rev, name, held.blocks[name])
        absent = f"{POST}/none"
        assert proof.read(held.proof(absent), held.did, absent, now, key) == (held.rev, None, None)


def test_a_proof_that_shows_something_else_is_refused() -> None:
    records = some(200)
    root, blocks = made(records)
    held = Repository(DID)
    held.head, held.blocks = root, blocks
    first, last = f"{POST}/000000", f"{POST}/000199"

    def reason(data: bytes, path: str, did: str = DID) -> Reason:
        with pytest.raises(WireError) as caught:
            proof.read(data, did, path, NOW, None)
        return caught.value.reason

    assert reason(held.proof(first), last) is Reason.MST_BLOCK_MISSING
    assert reason(held.proof(first), first, "did:plc:other") is Reason.COMMIT_MISMATCH
    shown = car.read(held.proof(first)).blocks
    without = {name: block for name, block in shown.items() if block != records[first]}
    assert reason(car.write(root, without), first) is Reason.RECORD_MISSING
    assert reason(held.proof(first)[:-1], first) is Reason.BAD_CAR
