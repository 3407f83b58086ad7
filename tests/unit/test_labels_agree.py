"""Whatever labelers send, in whatever order, the table is what the rules say of the good labels."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from actors.label_recorder import batch_of
from actors.labeler_reader import Received
from actors.store import labelers
from actors.store.labels import LabelWriter
from actors.store.session import Connection
from tests.label_index import LabelIndex, here, index
from tests.reading_labels import read_labeler
from tests.reference_labels import Row, rows
from tests.servers.directory import PlcDirectory
from tests.servers.labeler import Labeler
from tests.servers.labels import LabelKey, labeler_document, labels_frame

__all__ = ["here", "index"]  # fixtures

ANN, BEN = f"did:plc:{'a' * 24}", f"did:plc:{'b' * 24}"
KEYS = {did: LabelKey(did) for did in (ANN, BEN)}
NOW = datetime(2026, 1, 1, 1, tzinfo=UTC).timestamp()
LATER = NOW + 86_400.0

SUBJECTS = ("did:plc:" + "c" * 24, f"at://{ANN}/app.bsky.feed.post/3mbd354vwo42b", "https://a.com/")
CIDS = (
    None,
    "bafyreid7hzescfizm3pnc4t35sv34e235pv7i46irj5cxwhfhfe47zwiae",
    "bafyreibjifzpqj6o6wcq3hejh7y4z4z2vmiklkvykc57tw3pcbx3kxifpm",
)
VALUES = ("spam", "!takedown", "v" * 128)
# The second and third are one moment.
TIMES = (
    "2026-01-01T00:00:00.000Z",
    "2026-01-01T00:00:01Z",
    "2026-01-01T01:00:01.000+01:00",
    "2026-01-01T00:00:01.001Z",
    "2026-01-01T00:00:02Z",
)
EXPIRIES = (None, None, "2026-01-01T00:30:00Z", "2026-01-01T12:00:00Z", "2027-01-01T00:00:00Z")
Value = dict[str, Any]


def good(chance: random.Random, src: str) -> Value:
    fields = {
        "cid": chance.choice(CIDS),
        "neg": chance.choice((None, None, False, True)),
        "exp": chance.choice(EXPIRIES),
    }
    return KEYS[src].make(
        src,
        chance.choice(SUBJECTS),
        chance.choice(VALUES),
        cts=chance.choice(TIMES),
        **{name: value for name, value in fields.items() if value is not None},
    )


def resigned(value: Value, **changes: Any) -> Value:
    """Another label with the signature of its source."""
    return KEYS[value["src"]].sign({**unsigned(value), **changes})


def unsigned(value: Value) -> Value:
    return {name: kept for name, kept in value.items() if name != "sig"}


FORGERIES: Sequence[Callable[[Value], Any]] = (
    unsigned,
    lambda value: {**value, "neg": not value.get("neg", False)},
    lambda value: {**value, "cts": "2026-01-01T00:00:03Z"},
    lambda value: {**value, "val": value["val"][:-1] + "?"},
    lambda value: {**value, "uri": "did:web:somebody.example.com"},
    lambda value: {**value, "exp": "2026-01-01T00:00:04Z"},
    lambda value: {**unsigned(value), "sig": value["sig"][::-1]},
    lambda value: LabelKey("somebody").sign(unsigned(value)),
    # Signed as another version, or as none, and sent as the first.
    lambda value: {**resigned(value, ver=2), "ver": 1},
    lambda value: {**resigned({k: v for k, v in value.items() if k != "ver"}), "ver": 1},
    lambda value: resigned(value, ver=2),
    lambda value: resigned(value, val="w" * 129),
    lambda value: resigned(value, cts="2026-01-01T01:05:01Z"),
    lambda value: resigned(value, uri="at://nobody"),
    lambda value: resigned(value, cid="no cid"),
    lambda _value: None,
    lambda _value: {},
)


def table(connection: Connection) -> set[Row]:
    found = connection.execute("SELECT src, subject, cid, val, neg, cts, exp, sig FROM labels")
    return {Row(*row) for row in found.fetchall()}


def stream(chance: random.Random, src: str) -> tuple[list[Value], list[bytes]]:
    """The good labels of a source, and frames that hold them, some twice, among much else."""
    mine = [good(chance, src) for _ in range(120)]
    other = BEN if src == ANN else ANN
    sent: list[Any] = [*mine, *chance.choices(mine, k=60)]
    sent += [good(chance, other) for _ in range(20)]
    sent += [forge(chance.choice(mine)) for forge in FORGERIES for _ in range(3)]
    chance.shuffle(sent)
    frames: list[bytes] = []
    while sent:
        size = chance.randint(1, 12)
        frames.append(labels_frame(len(frames) + 1, *sent[:size]))
        del sent[:size]
    return mine, frames


def write(chance: random.Random, writer: LabelWriter, received: list[Received], now: float) -> None:
    while received:
        size = chance.randint(1, 8)
        assert not writer.write(batch_of(received[:size]), int(now * 1_000_000)).stuck
        del received[:size]


@pytest.mark.parametrize("seed", range(3))
def test_good_labels_among_forged_foreign_and_replayed_ones_come_to_what_the_rules_say(
    here: LabelIndex, seed: int
) -> None:
    chance = random.Random(seed)
    expected: list[Value] = []
    for src in (ANN, BEN):
        mine, frames = stream(chance, src)
        expected += mine
        with Labeler(frames) as labeler, PlcDirectory() as directory:
            directory.documents[src] = labeler_document(src, labeler.url, KEYS[src])
            labeler.close_after = chance.randint(5, 12)
            received = read_labeler(src, directory.url, len(frames), NOW)
            assert len(labeler.cursors) > 1
        refused = sum(item.refused.total() for item in received)
        assert refused == 20 + 3 * len(FORGERIES)
        labelers.begin(here.connection, here.fence, src, received[0].endpoint)
        write(chance, here.writer, received, NOW)
        assert labelers.states(here.connection, [src])[src].cursor == len(frames)
    assert table(here.connection) == rows(expected, NOW)
    # And when more of them have expired.
    while here.writer.expire(int(LATER * 1_000_000), 7):
        pass
    assert table(here.connection) == rows(expected, LATER)
    assert rows(expected, LATER) != rows(expected, NOW)


def test_events_tell_how_the_table_came_about(here: LabelIndex) -> None:
    chance = random.Random(7)
    mine, frames = stream(chance, ANN)
    with Labeler(frames) as labeler, PlcDirectory() as directory:
        directory.documents[ANN] = labeler_document(ANN, labeler.url, KEYS[ANN])
        received = read_labeler(ANN, directory.url, len(frames), NOW)
    labelers.begin(here.connection, here.fence, ANN, received[0].endpoint)
    write(chance, here.writer, received, NOW)
    balances = here.connection.execute(
        "SELECT l.neg, count(*) FILTER (WHERE e.action = 'created')"
        " - count(*) FILTER (WHERE e.action = 'deleted')"
        " FROM labels l LEFT JOIN label_events e ON e.label_uri = l.uri GROUP BY l.uri, l.neg"
    ).fetchall()
    assert set(balances) == {(True, 0), (False, 1)}
    assert len(balances) == len(rows(mine, NOW))
