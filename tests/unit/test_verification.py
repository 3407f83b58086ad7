"""Signatures and trees: what real servers send is valid, and a change of it is not."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from actors.atproto import car, commit, frames, inversion, multikey, signature
from actors.atproto.commit import OpenCommit
from actors.atproto.errors import Reason, WireError
from actors.atproto.events import Commit
from actors.atproto.mst import Tree
from actors.atproto.multikey import Curve, PublicKey
from actors.capture import read
from bench.network_account import key_of
from tests.author import Author
from tests.corpus.files import DATA

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def documents() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads((DATA / "did-documents.json").read_text())
    return loaded


def key_in(document: dict[str, Any]) -> PublicKey:
    for method in document["verificationMethod"]:
        if method["id"].endswith("#atproto"):
            return multikey.parse(method["publicKeyMultibase"], method["type"])
    raise AssertionError(document)


def captured() -> Iterator[tuple[Commit, OpenCommit]]:
    for frame in read(DATA / "network-replay.frames.gz"):
        event = frames.decode(frame)
        if isinstance(event, Commit):
            yield event, commit.open_commit(event)


def test_every_captured_commit_undoes_to_the_tree_before_it() -> None:
    number = 0
    for event, opened in captured():
        inversion.check(opened, event.prev_data)
        number += 1
    assert number > 3_000


def test_captured_commits_are_signed_by_the_key_of_their_document() -> None:
    held = documents()
    checked = wrong = 0
    for event, opened in captured():
        document = held.get(event.did)
        if document is None:
            continue
        message = signature.unsigned(opened.signed.block)
        checked += 1
        wrong += not signature.is_valid(key_in(document), message, opened.signed.sig)
    assert checked > 3_000
    # Accounts that moved were signed with another key before.
    assert wrong < checked / 20


def test_every_captured_repository_is_signed_and_proves_its_records() -> None:
    held = documents()
    index = json.loads((DATA / "repos/index.json").read_text())
    assert len(index) > 50
    proven = 0
    for path in sorted((DATA / "repos").glob("*.car*")):
        content = car.read(_bytes_of(path))
        signed = commit.read_signed(content)
        if signed.did in held:
            message = signature.unsigned(signed.block)
            valid = signature.is_valid(key_in(held[signed.did]), message, signed.sig)
            assert valid or "second" not in path.name, path.name
        tree = Tree.load(signed.data, content.blocks)
        for key, record in list(tree.items())[:5]:
            assert inversion.proves(signed.data, content.blocks, key.decode(), record)
            assert not inversion.proves(signed.data, content.blocks, key.decode(), b"other")
            proven += 1
    assert proven > 100


def _bytes_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


class Signed(Author):
    """An author who signs."""

    def __init__(self) -> None:
        super().__init__(1)
        self._sign = True


def one_commit() -> tuple[Signed, OpenCommit, Commit]:
    author = Signed()
    author.frame(*(author.put(f"app.bsky.feed.post/{n:03}", text=str(n)) for n in range(60)))
    frame = author.frame(
        author.put("app.bsky.feed.post/100", text="new"),
        author.put("app.bsky.feed.post/030", text="changed"),
    )
    event = frames.decode(frame)
    assert isinstance(event, Commit)
    return author, commit.open_commit(event), event


def test_a_signature_is_of_one_message_by_one_key_in_one_form() -> None:
    author, opened, _event = one_commit()
    key = PublicKey(Curve.K256, author.key.public_key.format(compressed=True))
    uncompressed = PublicKey(Curve.K256, author.key.public_key.format(compressed=False))
    message, sig = signature.unsigned(opened.signed.block), opened.signed.sig
    assert signature.is_valid(key, message, sig)
    assert signature.is_valid(uncompressed, message, sig)
    other = PublicKey(Curve.K256, key_of(0, 77).public_key.format(compressed=True))
    assert not signature.is_valid(other, message, sig)
    assert not signature.is_valid(key, message + b"\0", sig)
    for place in range(64):
        broken = bytearray(sig)
        broken[place] ^= 1
        assert not signature.is_valid(key, message, bytes(broken))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = sig[:32] + (order - int.from_bytes(sig[32:], "big")).to_bytes(32, "big")
    assert not signature.is_valid(key, message, high), "the other s fits too, and is not allowed"
    assert not signature.is_valid(key, message, sig[:63])
    assert not signature.is_valid(key, message, bytes(64))


def test_a_signature_on_the_other_curve_must_be_low_too() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    key = PublicKey(Curve.P256, point)
    digest = hashlib.sha256(b"message").digest()
    der = private.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    r, s = utils.decode_dss_signature(der)
    low, high = min(s, P256_ORDER - s), max(s, P256_ORDER - s)
    assert signature.is_valid(key, b"message", r.to_bytes(32, "big") + low.to_bytes(32, "big"))
    assert not signature.is_valid(key, b"message", r.to_bytes(32, "big") + high.to_bytes(32, "big"))
    assert not signature.is_valid(key, b"another", r.to_bytes(32, "big") + low.to_bytes(32, "big"))


def test_keys_are_read_in_every_form_that_documents_hold() -> None:
    forms = {
        (method["type"], key_in(document).curve)
        for document in documents().values()
        for method in document["verificationMethod"]
        if method["id"].endswith("#atproto")
    }
    assert {kind for kind, _curve in forms} >= {"Multikey", "EcdsaSecp256k1VerificationKey2019"}


@pytest.mark.parametrize(
    "text", ["", "z", "zz", "uAAAA", "z0OIl", "z" + "1" * 500, "zQ3sh", "zDnae"]
)
def test_what_is_no_key_is_refused_with_its_reason(text: str) -> None:
    for method in ("Multikey", "EcdsaSecp256k1VerificationKey2019", "Ed25519VerificationKey2020"):
        with pytest.raises(WireError) as caught:
            multikey.parse(text, method)
        assert caught.value.reason is Reason.BAD_KEY


def test_a_point_that_is_not_on_its_curve_is_refused() -> None:
    for curve in Curve:
        with pytest.raises(WireError) as caught:
            signature.is_valid(PublicKey(curve, b"\x02" + b"\xff" * 32), b"", b"\1" * 64)
        assert caught.value.reason is Reason.BAD_KEY


def test_operations_that_are_not_what_happened_are_refused() -> None:
    _author, opened, event = one_commit()
    inversion.check(opened, event.prev_data)
    create = next(op for op in opened.ops if op.prev is None)
    update = next(op for op in opened.ops if op.prev is not None)
    lies = [
        [create],
        [update],
        [create, msgspec.structs.replace(update, prev=create.cid)],
        [create, msgspec.structs.replace(update, cid=update.prev)],
        [msgspec.structs.replace(create, rkey="101"), update],
        [create, msgspec.structs.replace(update, prev=None)],
    ]
    for ops in lies:
        with pytest.raises(WireError) as caught:
            inversion.check(msgspec.structs.replace(opened, ops=tuple(ops)), event.prev_data)
        assert caught.value.reason is Reason.TREE_MISMATCH
    with pytest.raises(WireError):
        inversion.check(opened, opened.signed.data)
    with pytest.raises(WireError):
        inversion.check(opened, None)


def test_a_commit_that_leaves_out_a_part_of_its_tree_is_refused() -> None:
    _author, opened, event = one_commit()
    records = {op.cid for op in opened.ops}
    for name in opened.blocks:
        if name in records or name == event.commit:
            continue
        blocks = {other: block for other, block in opened.blocks.items() if other != name}
        with pytest.raises(WireError) as caught:
            inversion.check(msgspec.structs.replace(opened, blocks=blocks), event.prev_data)
        assert caught.value.reason is Reason.MST_BLOCK_MISSING
