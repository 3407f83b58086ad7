"""The reference indexer against the repositories of the recorded network, and against its rules."""

from datetime import datetime

import libipld

from tests.corpus import files
from tests.corpus.reference_run import author, life, reference, special, tables
from tests.reference import Reference
from tests.reference_decode import cid_text, read_varint, split_car

# Special cases whose record is refused.
DROPPED = (
    "listitem:foreignList",
    "threadgate:rkeyMismatch",
    "threadgate:foreignPost",
    "postgate:rkeyMismatch",
    "bad:post text missing",
    "bad:post text number",
    "bad:like subject string",
    "bad:like handle uri",
    "bad:follow not a did",
    "bad:profile rkey other",
)
MIGRATED = "did:plc:ibu2fuihny3yghtmcztj22cj"


def test_records_are_those_of_the_repositories_but_for_drops_and_a_moved_account() -> None:
    ours = {record.uri: record.cid for record in reference().records.values()}
    theirs: dict[str, str] = {}
    for car in files.repositories().values():
        did, rev, data, records = _repository(car)
        if did == MIGRATED:
            # Its earlier records came with the move, by import, and no event tells of them.
            continue
        repo = reference().repos[did]
        # What an account wrote while it was away is not applied, so it has to be looked at.
        away = did in life("reactivated", "takedownReversed") | special(
            "takedown:ozoneAccountReversed"
        )
        assert (repo.rev, repo.data, repo.out_of_step) == (rev, data, away)
        theirs |= records
    assert len(theirs) > 3_700
    # Servers give out no repository of an account that is away.
    gone = life("deactivated", "takendown") | {MIGRATED}
    gone |= special("takedown:ozoneAccount")
    missing = theirs.keys() - ours.keys()
    surplus = {uri for uri in ours.keys() - theirs.keys() if author(uri) not in gone}
    assert missing == special(*DROPPED)
    assert surplus == set()
    assert all(ours[uri] == theirs[uri] for uri in ours.keys() & theirs.keys())


def test_events_and_operations_are_those_counted_while_recording() -> None:
    manifest = files.document("manifest")
    events = reference().events
    assert {name: events[name] for name in manifest["byType"]} == manifest["byType"]
    assert events["ops"] == manifest["ops"]
    assert events["skipped"] == 0
    assert len(reference().repos) == manifest["dids"]
    surviving = sum(
        actions["create"] - actions.get("delete", 0)
        for actions in manifest["byCollection"].values()
    )
    deleted = life("deletedByAdmin", "deletedBySelf")
    assert surviving - len(reference().records) == len(DROPPED) + _operations_of(deleted)


def _operations_of(dids: set[str]) -> int:
    """How many records these accounts have written, in the end, before they went."""
    frames = (libipld.decode_dag_cbor_multi(frame)[1] for frame in files.demo_frames())
    return sum(
        {"create": 1, "update": 0, "delete": -1}[op["action"]]
        for body in frames
        if body.get("repo") in dids
        for op in body["ops"]
    )


def test_drops_have_their_reasons() -> None:
    # The mismatch is the #sync of the moved account: its message names another rev than its block.
    assert reference().drops == {"not_authorized": 5, "invalid_record": 5, "commit_mismatch": 1}


def test_reading_the_capture_twice_changes_nothing() -> None:
    twice = Reference()
    for frame in [*files.demo_frames(), *files.demo_frames()]:
        twice.frame(frame)
    assert twice.events["skipped"] == files.document("manifest")["byType"]["#commit"]
    assert twice.tables() == tables()


def test_a_later_reading_comes_to_the_same_records() -> None:
    replay = Reference()
    for frame in files.replay_frames():
        replay.frame(frame)
    assert not life("deletedByAdmin", "deletedBySelf") & replay.repos.keys()
    assert replay.records.keys() == reference().records.keys()


def test_accounts_stand_as_their_last_events_said() -> None:
    shown = {did: standing.shown for did, standing in reference().accounts.items()}
    deleted = life("deletedByAdmin", "deletedBySelf")
    assert {did for did, status in shown.items() if status == "deleted"} == deleted
    assert {did for did, status in shown.items() if status == "deactivated"} == life("deactivated")
    assert life("takendown") < {did for did, status in shown.items() if status == "takendown"}
    assert not {shown[did] for did in life("reactivated", "takedownReversed")} - {None}
    assert not {uri for uri in reference().records if author(uri) in deleted}


def test_a_duplicate_takes_over_when_the_record_before_it_goes() -> None:
    # Three records for one thing; the first was deleted, so the second is indexed, and the third
    # waits (of the likes it was deleted as well).
    for name, table in (
        ("dupTakeover:like", "likes"),
        ("dupTakeover:repost", "reposts"),
        ("dupTakeover:follow", "follows"),
        ("dupTakeover:block", "blocks"),
    ):
        first, second, third = sorted(special(name))
        assert (first,) not in tables()[table]
        assert (second,) in tables()[table]
        assert (third,) not in tables()[table]
        assert ((third,) in tables()["engine_duplicates"]) == (table != "likes")


def test_edge_cases_of_time() -> None:
    def created(name: str) -> datetime:
        (uri,) = special(name)
        value = tables()["posts"][uri,]["created_at"]
        assert isinstance(value, datetime)
        return value

    def committed(name: str) -> datetime:
        (uri,) = special(name)
        return reference().records[uri].commit_time

    for name in ("post:future", "bad:post createdAt garbage", "bad:post createdAt year 0000"):
        assert created(name) == committed(name)
    assert created("bad:post no createdAt") == committed("bad:post no createdAt")
    assert created("post:past") < committed("post:past")
    assert created("post:micros").microsecond % 1000 != 0


def _repository(car: bytes) -> tuple[str, str, bytes, dict[str, str]]:
    """DID, rev, root of the tree, and the CID of each record by uri, of an exported repository."""
    blocks = split_car(car)
    size, start = read_varint(car, 0)
    root = libipld.decode_dag_cbor(car[start : start + size])["roots"][0]
    commit = libipld.decode_dag_cbor(blocks[root])
    did = commit["did"]
    records = {
        f"at://{did}/{key.decode()}": cid_text(value)
        for key, value in _walk(blocks, commit["data"])
    }
    return did, commit["rev"], commit["data"], records


def _walk(blocks: dict[bytes, bytes], node_cid: bytes | None) -> list[tuple[bytes, bytes]]:
    if node_cid is None:
        return []
    node = libipld.decode_dag_cbor(blocks[node_cid])
    found = _walk(blocks, node["l"])
    key = b""
    for entry in node["e"]:
        key = key[: entry["p"]] + entry["k"]
        found.append((key, entry["v"]))
        found += _walk(blocks, entry["t"])
    return found
