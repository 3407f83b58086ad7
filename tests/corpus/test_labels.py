"""The recorded labeler: its stream gives its own table, and nothing that was forged gets in."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from actors.atproto import label as labels
from actors.atproto.label import Label, LabelRefused, Refusal
from actors.label_recorder import batch_of
from actors.labeler_identity import LabelerIdentity, labeler_of
from actors.store import labelers
from actors.store.labelers import LabelerState
from actors.store.labels import LabelBatch, LabelWriter
from actors.store.session import Connection
from tests.corpus.files import document, label_frames, oracle
from tests.label_index import LabelIndex, here, index
from tests.reading_labels import read_labeler
from tests.servers.directory import PlcDirectory
from tests.servers.labeler import Labeler
from tests.servers.network import recorded_documents

__all__ = ["here", "index"]  # fixtures

SRC = "did:plc:6rccq36mzkt43saroyej2tyx"
# Between the last label and the moment at which one of them expires.
NOW = datetime(2026, 11, 23, 21, 15, tzinfo=UTC).timestamp()
MICROS = int(NOW * 1_000_000)
DAY = 86_400 * 1_000_000


@cache
def identity() -> LabelerIdentity:
    return _identity(document("did-documents")[SRC])


def _identity(of: object) -> LabelerIdentity:
    return labeler_of(json.dumps(of).encode(), SRC, development=True)


@cache
def recorded() -> tuple[Label, ...]:
    """The labels of the stream, all of them with signatures that hold."""
    found = []
    for frame in label_frames():
        event = labels.decode(frame)
        assert isinstance(event, labels.Labels)
        for value in event.labels:
            label = labels.read(value, SRC, MICROS)
            assert labels.is_signed(label, identity().key)
            found.append(label)
    return tuple(found)


def values() -> Iterator[dict[str, Any]]:
    """The labels as they came."""
    for frame in label_frames():
        event = labels.decode(frame)
        assert isinstance(event, labels.Labels)
        yield from event.labels


def table(connection: Connection) -> set[tuple[Any, ...]]:
    return set(
        connection.execute(
            "SELECT src, subject, coalesce(cid, ''), val, neg, cts, coalesce(exp, ''),"
            " '\\x' || encode(sig, 'hex') FROM labels"
        ).fetchall()
    )


def labelers_own_table() -> set[tuple[Any, ...]]:
    return {
        (
            row["src"],
            row["uri"],
            row["cid"],
            row["val"],
            row["neg"] == "t",
            row["cts"],
            row["exp"],
            row["sig"],
        )
        for row in oracle("ozone_label")
    }


def write(
    writer: LabelWriter, given: Sequence[Label], size: int = 1_000, now: int = MICROS
) -> None:
    for start in range(0, len(given), size):
        writer.write(LabelBatch(list(given[start : start + size])), now)


def test_the_stream_gives_the_labelers_own_table(
    here: LabelIndex,
) -> None:
    write(here.writer, recorded())
    assert len(recorded()) == 80
    assert table(here.connection) == labelers_own_table()
    counts = dict(
        here.connection.execute(
            "SELECT action, count(*) FROM label_events GROUP BY action"
        ).fetchall()
    )
    assert counts == {"created": 72, "deleted": 8}


@pytest.mark.parametrize("seed", range(4))
def test_neither_order_nor_repetition_nor_batches_change_the_table(
    here: LabelIndex, seed: int
) -> None:
    chance = random.Random(seed)
    sent = [*recorded(), *chance.choices(recorded(), k=40)]
    chance.shuffle(sent)
    write(here.writer, sent, size=chance.randint(1, 30))
    assert table(here.connection) == labelers_own_table()


def test_when_its_time_has_come_the_one_that_expires_holds_no_more_in_either_way(
    here: LabelIndex,
) -> None:
    write(here.writer, recorded())
    assert here.writer.expire(MICROS + 2 * DAY, 100) == 1
    swept = table(here.connection)
    assert len(swept - labelers_own_table()) == 1
    here.connection.execute("DELETE FROM labels")
    write(here.writer, recorded(), now=MICROS + 2 * DAY)
    assert table(here.connection) == swept


def test_every_changed_field_of_every_label_breaks_its_signature() -> None:
    changes: dict[str, Any] = {
        "uri": "did:plc:drlgzakhpthmyl7t7brzakyg",
        "val": "forged",
        "cts": "2026-11-23T21:14:59.000Z",
        "neg": True,
        "exp": "2026-11-25T00:00:00.000Z",
    }
    for value in values():
        for name, other in changes.items():
            if value.get(name) != other:
                forged = labels.read({**value, name: other}, SRC, MICROS)
                assert not labels.is_signed(forged, identity().key)
        for name in ("cid", "neg", "exp"):
            if name in value:
                rest = {key: kept for key, kept in value.items() if key != name}
                assert not labels.is_signed(labels.read(rest, SRC, MICROS), identity().key)
        with pytest.raises(LabelRefused) as refused:
            labels.read({**value, "src": "did:plc:drlgzakhpthmyl7t7brzakyg"}, SRC, MICROS)
        assert refused.value.reason is Refusal.WRONG_SOURCE


def test_the_key_of_the_repository_signs_no_labels() -> None:
    entry = json.loads(json.dumps(document("did-documents")[SRC]))
    repository, labeler = entry["verificationMethod"]
    repository["id"], labeler["id"] = labeler["id"], repository["id"]
    wrong = _identity(entry).key
    assert not any(labels.is_signed(label, wrong) for label in recorded())


def test_read_over_the_network_it_is_the_same_table(
    here: LabelIndex,
) -> None:
    with Labeler(label_frames()) as labeler, PlcDirectory() as directory:
        directory.documents.update(recorded_documents(labeler=labeler.url))
        # So that it takes several connections.
        labeler.close_after = 30
        received = read_labeler(SRC, directory.url, 80, NOW)
    assert labeler.cursors == [0, 30, 60]
    assert [item.seq for item in received] == list(range(1, 81))
    assert not any(item.refused for item in received)
    endpoint = received[0].endpoint
    with here.connection.transaction():
        here.connection.execute(
            "INSERT INTO engine_labelers (did, endpoint) VALUES (%s, %s)", [SRC, endpoint]
        )
    assert not here.writer.write(batch_of(received), MICROS).stuck
    assert table(here.connection) == labelers_own_table()
    assert labelers.states(here.connection, [SRC]) == {SRC: LabelerState(endpoint, 80)}
