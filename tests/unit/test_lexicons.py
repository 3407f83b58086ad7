"""The lexicons at hand, those of the package and of the user, and what they say of records."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors import lexicons
from actors.atproto import commit, datamodel, frames
from actors.atproto.events import Commit
from actors.atproto.lexicon import Lexicon, LexiconError
from actors.decoder import Batch
from actors.lexicons import Lexicons, Validation
from actors.store.batch import AppliedCommit, Dropped
from bench.network import Network
from tests import wire
from tests.corpus import files

POST = "app.bsky.feed.post"
OWN = "com.example.own.entry"
RECORD = {"$type": POST, "text": "hello", "createdAt": wire.TIME}

# What the recorded network holds that breaks its lexicon: the key is `special.json`'s. The reason,
# and whether the network's own index took it all the same: it looks at no record keys, and takes
# a year zero, which the specification forbids.
REFUSED = {
    "bad:post no createdAt": ("createdAt: is missing", False),
    "bad:post createdAt garbage": ("createdAt: is no datetime: 'yesterday'", False),
    "bad:post createdAt year 0000": (
        "createdAt: is no datetime: '0000-01-01T00:00:00.000Z'",
        True,
    ),
    "bad:post text missing": ("text: is missing", False),
    "bad:post text number": ("text: must be a string, not an integer", False),
    "bad:post too long": ("text: has 4000 bytes, 3000 are allowed", False),
    "bad:post rkey not tid": ("the record key must be tid, not 'not-a-tid'", True),
    "bad:like subject string": ("subject: must be an object, not a string", False),
    "bad:follow not a did": ("subject: is no did: 'alice.test'", False),
    "bad:profile rkey other": ("the record key must be literal:self, not 'other'", True),
    "bad:list empty name": ("name: has 0 bytes, 1 is the least", False),
    "bad:generator bad did": ("did: is no did: 'nope'", False),
}
# What was written to break something else, or nothing that a lexicon knows of.
TAKEN = {
    "bad:post NUL char",
    "bad:post unknown embed",
    "bad:post extra fields",
    "bad:post facet inverted",
    "bad:post facet beyond text",
    "bad:like subject missing post",
    "bad:like handle uri",
    "bad:follow unknown did",
    "bad:follow did:web",
    "bad:list bad purpose",
}


@pytest.fixture(scope="module")
def known() -> Lexicons:
    return Lexicons()


def records(stream: Iterator[bytes]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Every record of a stream: uri, collection, key and the record itself."""
    for frame in stream:
        event = frames.decode(frame)
        if isinstance(event, Commit):
            for op in commit.open_commit(event).ops:
                if op.record is not None:
                    data, _ = datamodel.to_data(op.record)
                    uri = f"at://{event.did}/{op.collection}/{op.rkey}"
                    yield uri, op.collection, op.rkey, data


def own(folder: Path, **changed: Any) -> Path:
    """Write a lexicon of the user's into a folder; returns its path."""
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    main = {"type": "record", "key": "any", "record": schema}
    path = folder / "deep" / "entry.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"lexicon": 1, "id": OWN, "defs": {"main": main}, **changed}))
    return path


def test_every_document_of_the_package_compiles_and_refers_to_nothing_unknown(
    known: Lexicons,
) -> None:
    missing: set[str] = set()

    def find(nsid: str) -> Any:
        document = known.document(nsid)
        if document is None:
            missing.add(nsid)
        return document

    compiled = Lexicon(find)
    names = list(known)
    for nsid in names:
        document = known.document(nsid)
        assert document is not None
        compiled.compile_all(document)
    assert len(names) > 500
    assert missing == set()


def test_no_valid_record_of_the_recorded_network_is_refused(known: Lexicons) -> None:
    special = files.document("special")["special"]
    names = {uri: name for name, uris in special.items() for uri in uris}
    refused, seen = {}, set()
    for uri, collection, rkey, data in records(iter(files.demo_frames())):
        seen.add(uri)
        problem = known.validate(collection, rkey, data)
        if problem is not None:
            refused[names[uri]] = str(problem)
    assert refused == {name: reason for name, (reason, _) in REFUSED.items()}
    assert {name for name in special if name.startswith("bad:")} == set(REFUSED) | TAKEN
    assert {uri for uri, name in names.items() if name in TAKEN} <= seen


def test_the_networks_own_index_took_of_the_refused_records_what_is_said_here() -> None:
    outcomes = {row["kind"]: row["inRecordTable"] == "1" for row in files.oracle("outcomes")}
    assert {name: outcomes[name] for name in REFUSED} == {
        name: taken for name, (_, taken) in REFUSED.items()
    }


def test_every_record_of_the_synthetic_network_is_valid(known: Lexicons) -> None:
    network = Network(seed=5, users=200, sign=False).events(10_000)
    collections = set()
    for uri, collection, rkey, data in records(network):
        collections.add(collection)
        assert known.validate(collection, rkey, data) is None, uri
    assert len(collections) > 15


def test_a_record_of_a_collection_that_no_document_defines_passes(known: Lexicons) -> None:
    for collection in ("com.example.unknown", "app.bsky.feed.getTimeline", "app.bsky.feed.defs"):
        assert known.validate(collection, "..", {"$type": collection, "anything": 1.5}) is None


def test_a_lexicon_of_the_user_is_used_and_wins_over_that_of_the_package(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "post.json").write_text(
        json.dumps(
            {
                "lexicon": 1,
                "id": POST,
                "defs": {"main": {"type": "record", "key": "any", "record": {"type": "object"}}},
            }
        )
    )
    with_own = Lexicons(tmp_path)
    assert with_own.validate(OWN, "a", {"n": 1}) is None
    assert str(with_own.validate(OWN, "a", {"n": "1"})) == "n: must be an integer, not a string"
    assert with_own.validate(POST, "not-a-tid", {}) is None
    assert Lexicons().validate(OWN, "a", {"n": "1"}) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": "thing"}, "needs an NSID"),
        ({"id": 1}, "needs an NSID"),
        ({"lexicon": 3}, "version 1"),
        (
            {"defs": {"main": {"type": "record", "key": "when"}}},
            "no kind of record keys|must be an object",
        ),
        ({"defs": {"part": {"type": "float"}}}, "cannot be of type 'float'"),
    ],
)
def test_a_lexicon_of_the_user_that_cannot_be_used_is_named(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    path = own(tmp_path, **changed)
    with pytest.raises(LexiconError, match=said) as caught:
        Lexicons(tmp_path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_documents_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("{", "[]", '"a"', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(LexiconError, match=r"a\.json"):
            Lexicons(tmp_path)
    path.unlink()
    first = own(tmp_path)
    second = tmp_path / "other.json"
    second.write_bytes(first.read_bytes())
    with pytest.raises(LexiconError, match=r"both define com\.example\.own\.entry: remove one"):
        Lexicons(tmp_path)
    with pytest.raises(LexiconError, match="is not a folder"):
        Lexicons(tmp_path / "nowhere")


def test_a_lexicon_that_goes_away_later_is_no_fault_of_the_records(tmp_path: Path) -> None:
    path = own(tmp_path)
    with_own = Lexicons(tmp_path)
    path.write_text("{")
    with capture_logs() as logs:
        assert with_own.validate(OWN, "a", {"n": "1"}) is None
        assert with_own.validate(OWN, "a", {"n": "1"}) is None
    assert [entry["nsid"] for entry in logs if entry["log_level"] == "warning"] == [OWN]


def test_without_the_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicons, "PACKAGE", "no-such-package")
    with pytest.raises(LexiconError, match="run 'make install', or switch validation off"):
        Validation("on").load()
    assert Validation("off").load() is None


def test_names_that_anybody_makes_up_are_not_kept(known: Lexicons) -> None:
    kept = len(known._checks)
    for number in range(1000):
        known.validate(f"com.example.made{number}", "a", {})
    assert len(known._checks) == kept


def decoded(known: Lexicons, *, report_only: bool) -> tuple[Batch, Sequence[Dropped]]:
    """A commit of three posts, the second of which breaks its lexicon."""
    blocks = [wire.record(), wire.record(createdAt="soon"), wire.record(text="fine")]
    ops = [
        wire.op("create", f"{POST}/3mbd355eai62{letter}", block)
        for letter, block in zip("abc", blocks, strict=True)
    ]
    batch = Batch(validate=known.validate, report_only=report_only)
    batch.add(wire.frame(wire.commit_body(ops, blocks)))
    (change,) = batch.changes
    assert isinstance(change, AppliedCommit)
    indexed = [operation.row is not None for operation in change.operations]
    assert indexed == [True, report_only, True]
    return batch, change.drops


PROBLEM = Dropped(
    "lexicon",
    f"at://{wire.DID}/{POST}/3mbd355eai62b",
    "createdAt: is no datetime: 'soon'",
)


def test_a_record_that_breaks_its_lexicon_is_a_drop_and_its_siblings_are_applied(
    known: Lexicons,
) -> None:
    batch, drops = decoded(known, report_only=False)
    assert list(drops) == [PROBLEM]
    assert batch.reported == []
    assert "lexicon.reported" not in batch.tallies()


def test_where_it_is_only_reported_a_record_that_breaks_its_lexicon_is_indexed_and_counted(
    known: Lexicons,
) -> None:
    batch, drops = decoded(known, report_only=True)
    assert list(drops) == []
    assert batch.reported == [PROBLEM]
    assert batch.tallies()["lexicon.reported"] == 1
