"""The reference indexer's own rules, on commits made by hand."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

import libipld
import pytest

from tests.reference import Reference
from tests.reference_decode import cid_text, parse_time, parse_uri, record_time, tid_time

ANN, BEN = "did:plc:ann", "did:plc:ben"
LIKE, POST, THING = "app.bsky.feed.like", "app.bsky.feed.post", "com.example.thing"
TIME = "2026-01-02T03:04:05.678Z"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_000)  # noqa: DTZ001 - the tables hold naive UTC
DATA_1, DATA_2, DATA_3 = (
    b"\x01\x71\x12\x20" + hashlib.sha256(bytes((n,))).digest() for n in range(3)
)
REV_1, REV_2, REV_3 = "3mbd354vwo42b", "3mbd354vwo42c", "3mbd354vwo42d"
ABSENT = b"\x01\x71\x12\x20" + bytes(32)

Op = tuple[str, str, Any]


def _block(value: Any) -> tuple[bytes, bytes]:
    data = value if isinstance(value, bytes) else libipld.encode_dag_cbor(value)
    return b"\x01\x71\x12\x20" + hashlib.sha256(data).digest(), data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _car(root: bytes, blocks: list[tuple[bytes, bytes]]) -> bytes:
    header = libipld.encode_dag_cbor({"roots": [root], "version": 1})
    parts = [_varint(len(header)), header]
    for cid, data in blocks:
        parts += [_varint(len(cid) + len(data)), cid, data]
    return b"".join(parts)


def _frame(kind: str, body: dict[str, Any]) -> bytes:
    head: bytes = libipld.encode_dag_cbor({"t": kind, "op": 1})
    rest: bytes = libipld.encode_dag_cbor(body)
    return head + rest


def _signed(did: str, rev: str, data: bytes) -> tuple[bytes, bytes]:
    commit = {"did": did, "version": 3, "data": data, "rev": rev, "prev": None, "sig": bytes(64)}
    return _block(commit)


def commit(
    *ops: Op,
    did: str = ANN,
    rev: str = REV_1,
    data: bytes = DATA_1,
    since: str | None = None,
    previous: bytes | None = None,
    seq: int = 7,
) -> bytes:
    """A #commit. An operation is action, path and record; None leaves the record out of the CAR."""
    signed = _signed(did, rev, data)
    blocks = [signed]
    listed = []
    for action, path, record in ops:
        cid = None
        if action != "delete":
            cid = ABSENT
            if record is not None:
                cid, block = _block(record)
                blocks.append((cid, block))
        listed.append({"action": action, "path": path, "cid": cid})
    body = {
        "seq": seq,
        "repo": did,
        "rev": rev,
        "since": since,
        "time": TIME,
        "commit": signed[0],
        "blocks": _car(signed[0], blocks),
        "ops": listed,
        "blobs": [],
        "rebase": False,
        "tooBig": False,
    }
    if previous is not None:
        body["prevData"] = previous
    return _frame("#commit", body)


def sync(rev: str, data: bytes, did: str = ANN) -> bytes:
    """A #sync."""
    signed = _signed(did, rev, data)
    body = {"seq": 9, "did": did, "rev": rev, "time": TIME, "blocks": _car(signed[0], [signed])}
    return _frame("#sync", body)


def run(*frames: bytes) -> Reference:
    reference = Reference()
    for frame in frames:
        reference.frame(frame)
    return reference


def thing(**fields: Any) -> dict[str, Any]:
    return {"$type": THING, **fields}


def like(subject: str, at: str = TIME) -> dict[str, Any]:
    return {"$type": LIKE, "createdAt": at, "subject": {"uri": subject, "cid": "c"}}


def test_operations_on_one_key_are_folded_to_the_last() -> None:
    path = f"{THING}/a"
    folded = run(commit(("create", path, None), ("update", path, thing(n=2))))
    assert [record.value["n"] for record in folded.records.values()] == [2]
    assert not folded.drops
    removed = run(commit(("create", path, thing(n=1)), ("delete", path, None)))
    assert not removed.records
    replaced = run(commit(("delete", path, None), ("create", path, thing(n=3))))
    assert [record.value["n"] for record in replaced.records.values()] == [3]


def test_operations_that_cannot_follow_each_other_spoil_the_commit() -> None:
    path = f"{THING}/a"
    reference = run(commit(("create", path, thing()), ("create", path, thing())))
    assert reference.drops == {"ops_do_not_chain": 1}
    assert not reference.repos


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "record_missing"),
        (thing(number=1.5), "float"),
        (thing(number=2**53), "integer_too_large"),
        ({"$type": "com.example.other"}, "type_mismatch"),
        ({}, "type_mismatch"),
        ([THING], "not_a_map"),
        (libipld.encode_dag_cbor(thing()) + b"\0", "bad_cbor"),
        (b"\xa1\x65$type\x61\xff", "invalid_utf8"),
    ],
)
def test_an_update_that_is_dropped_removes_what_was_there(record: Any, reason: str) -> None:
    path = f"{THING}/a"
    reference = run(
        commit(("create", path, thing())),
        commit(
            ("update", path, record),
            ("create", f"{THING}/b", thing()),
            rev=REV_2,
            since=REV_1,
            data=DATA_2,
        ),
    )
    assert reference.drops == {reason: 1}
    assert list(reference.records) == [f"at://{ANN}/{THING}/b"]
    assert reference.repos[ANN].rev == REV_2


def test_nesting_is_bounded_at_32_levels_the_record_being_the_first() -> None:
    def nested(levels: int) -> dict[str, Any]:
        inner: Any = []
        for _ in range(levels - 2):
            inner = [inner]
        return thing(inner=inner)

    assert not run(commit(("create", f"{THING}/a", nested(32)))).drops
    assert run(commit(("create", f"{THING}/a", nested(33)))).drops == {"too_deep": 1}


def test_nul_links_and_bytes_in_json() -> None:
    link = b"\x01\x55\x12\x20" + bytes(32)
    # libipld writes these 36 bytes as a link, and others as bytes.
    reference = run(
        commit(("create", f"{THING}/a", thing(link=link, raw=b"\x01\x02", text="a\0b")))
    )
    (record,) = reference.records.values()
    assert record.value == {
        "$type": THING,
        "link": {"$link": cid_text(link)},
        "raw": {"$bytes": "AQI"},
        "text": "ab",
    }


def test_a_commit_at_or_below_the_known_rev_is_skipped() -> None:
    reference = run(
        commit(("create", f"{THING}/a", thing()), rev=REV_2),
        commit(("delete", f"{THING}/a", None), rev=REV_2),
        commit(("delete", f"{THING}/a", None), rev=REV_1),
    )
    assert len(reference.records) == 1
    assert reference.events["skipped"] == 2


@pytest.mark.parametrize(
    ("since", "previous", "out_of_step"),
    [
        (REV_1, DATA_1, False),
        (REV_1, None, False),
        (None, None, True),
        (REV_3, DATA_1, True),
        (REV_1, DATA_3, True),
    ],
)
def test_a_discontinuous_commit_is_applied_and_marks_its_repository(
    since: str | None, previous: bytes | None, out_of_step: bool
) -> None:
    reference = run(
        commit(since=REV_3, data=DATA_1),
        commit(
            ("create", f"{THING}/a", thing()),
            rev=REV_2,
            data=DATA_2,
            since=since,
            previous=previous,
        ),
    )
    assert len(reference.records) == 1
    assert reference.repos[ANN].out_of_step == out_of_step
    reference.frame(commit(rev=REV_3, data=DATA_3, since=REV_2, previous=DATA_2))
    assert reference.repos[ANN].out_of_step == out_of_step, "the mark stays"


@pytest.mark.parametrize(
    ("rev", "data", "out_of_step"),
    [(REV_2, DATA_2, False), (REV_3, DATA_2, True), (REV_2, DATA_3, True), (REV_1, DATA_1, False)],
)
def test_a_sync_that_tells_of_another_state_marks_the_repository(
    rev: str, data: bytes, out_of_step: bool
) -> None:
    reference = run(commit(rev=REV_2, data=DATA_2), sync(rev, data), sync(REV_3, DATA_3, BEN))
    assert reference.repos.keys() == {ANN}
    repo = reference.repos[ANN]
    assert (repo.rev, repo.data, repo.out_of_step) == (REV_2, DATA_2, out_of_step)


def test_the_lowest_of_two_records_for_one_thing_is_indexed() -> None:
    subject = f"at://{BEN}/{POST}/{REV_1}"
    reference = run(
        commit(
            ("create", f"{LIKE}/b", like(subject)),
            ("create", f"{LIKE}/a", like(subject)),
            ("create", f"{LIKE}/B", like(subject)),
        )
    )
    uri = f"at://{ANN}/{LIKE}"
    tables = reference.tables()
    assert tables["likes"].keys() == {(f"{uri}/B",)}
    assert tables["engine_duplicates"].keys() == {(f"{uri}/a",), (f"{uri}/b",)}
    assert tables["engine_duplicates"][f"{uri}/a",]["thing"] == f"{ANN} {subject}"
    assert tables["post_aggregations"][subject,]["like_count"] == 1
    reference.frame(commit(("delete", f"{LIKE}/B", None), rev=REV_2, data=DATA_2))
    tables = reference.tables()
    assert tables["likes"].keys() == {(f"{uri}/a",)}
    assert tables["post_viewer_states"][subject, ANN]["like_uri"] == f"{uri}/a"


def test_likes_of_what_is_no_post_are_counted_apart() -> None:
    feed = f"at://{BEN}/app.bsky.feed.generator/feed"
    tables = run(commit(("create", f"{LIKE}/a", like(feed)))).tables()
    assert tables["engine_subject_aggregations"] == {(feed,): {"uri": feed, "like_count": 1}}
    assert not tables.get("post_aggregations")
    assert not tables.get("post_viewer_states")
    assert tables["users"].keys() == {(ANN,), (BEN,)}


def test_users_named_by_a_record_stay_when_it_goes() -> None:
    subject = f"at://{BEN}/{POST}/{REV_1}"
    reference = run(
        commit(("create", f"{LIKE}/a", like(subject))),
        commit(("delete", f"{LIKE}/a", None), rev=REV_2, data=DATA_2),
    )
    tables = reference.tables()
    assert tables["users"].keys() == {(ANN,), (BEN,)}
    assert not tables.get("likes")
    assert not tables.get("post_aggregations")
    dropped = run(commit(("create", f"{LIKE}/a", {**like(subject), "createdAt": 5, "via": 1.5})))
    assert dropped.tables()["users"].keys() == {(ANN,)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05"),
        ("2026-01-02T05:04:05.1234567+02:00", "2026-01-02T03:04:05.123456"),
        ("2026-01-01T23:04:05-04:00", "2026-01-02T03:04:05"),
        ("2026-01-02T03:04:60Z", "2026-01-02T03:05:00"),
        ("2026-01-02T03:04:05", None),
        ("2026-01-02 03:04:05Z", None),
        ("2026-02-30T03:04:05Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("2026-01-02T03:04:05+24:00", None),
        ("2026-01-02T03:04:0\u0665Z", None),
        (5, None),
    ],
)
def test_times(text: object, expected: str | None) -> None:
    wanted = None if expected is None else datetime.fromisoformat(expected)
    assert parse_time(text) == wanted


def test_a_time_ahead_of_the_commit_by_more_than_five_minutes_becomes_the_commits() -> None:
    near = (MOMENT + timedelta(minutes=5)).isoformat() + "Z"
    far = (MOMENT + timedelta(minutes=5, microseconds=1)).isoformat() + "Z"
    assert record_time(near, MOMENT) == MOMENT + timedelta(minutes=5)
    assert record_time(far, MOMENT) == MOMENT
    assert record_time(None, MOMENT) == MOMENT


def test_a_record_key_that_is_no_tid_names_1970() -> None:
    assert tid_time("3jzfcijpj2z2a").year == 2023
    for rkey in ("self", "zzzzzzzzzzzzz", "3jzfcijpj2z2", "3JZFCIJPJ2Z2A"):
        assert tid_time(rkey) == datetime(1970, 1, 1)  # noqa: DTZ001 - naive UTC


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (f"at://{ANN}/{POST}/self", True),
        ("at://did:web:localhost%3A80/a.b.c/x", True),
        (f"at://{ANN}/{POST}", False),
        (f"at://{ANN}", False),
        (f"at://{ANN}/{POST}/..", False),
        (f"at://{ANN}/{POST}/a#b", False),
        (f"at://{ANN}/{POST}/a/b", False),
        (f"at://ann.test/{POST}/self", False),
        (f"at://{ANN}/no/self", False),
        (f"https://{ANN}/{POST}/self", False),
    ],
)
def test_uris(text: str, valid: bool) -> None:
    assert (parse_uri(text) is not None) == valid
