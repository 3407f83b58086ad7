"""The modes of validation, from the settings to what a shard indexes, counts and says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actors import capture
from actors.atproto import frames
from actors.atproto.events import Commit
from actors.lexicons import Validation
from actors.messages import MESSAGES
from actors.shard import Shard, ShardSettings
from actors.store.session import SessionSettings
from actors.summary import summarise
from actors.topology import build
from config.loader import ConfigError, load
from engine.child import ChildSpec
from engine.control import Fail
from engine.topology import Edge, EdgeKind
from tests.corpus import files
from tests.unit.engine_harness import Harness
from tests.unit.test_lexicons import REFUSED
from tests.unit.test_shard import EPOCH, Feed, Feeder
from tests.writing import make_index


def special(name: str) -> str:
    uri: str = files.document("special")["special"][name][0]
    return uri


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    """The commits that hold records which break their lexicon, and no others."""
    paths = {special(name).removeprefix("at://") for name in REFUSED}
    chosen = []
    for frame in files.demo_frames():
        event = frames.decode(frame)
        if isinstance(event, Commit) and any(f"{event.did}/{op.path}" in paths for op in event.ops):
            chosen.append(frame)
    path = tmp_path_factory.mktemp("feed") / "feed.frames"
    capture.write(path, chosen)
    return Feed(path)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(make_index(database), autocommit=True) as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        yield opened


@contextmanager
def shard(database: str, validation: Validation) -> Iterator[Harness]:
    edges = (
        Edge("feeder", "shard-0", EdgeKind.TELL, messages=1000, bytes=64 * 1024 * 1024),
        Edge("shard-0", "user_gate", EdgeKind.ASK, messages=4),
        Edge("shard-0", "user_gate", EdgeKind.OFFER, messages=64),
    )
    with Harness(edges, MESSAGES) as harness:
        settings = ShardSettings(
            SessionSettings(database),
            100,
            1 << 20,
            5,
            1000,
            250,
            False,
            1,
            ("user_gate",),
            validation,
        )
        harness.spawn("shard-0", Shard, settings)
        yield harness


def posts(connection: psycopg.Connection[Any]) -> set[str]:
    return {uri for (uri,) in connection.execute("SELECT uri FROM posts").fetchall()}


def tally(connection: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(connection.execute("SELECT name, amount FROM engine_tallies").fetchall())


@pytest.mark.parametrize("mode", ["on", "report", "off"])
def test_a_shard_drops_reports_or_overlooks_what_breaks_its_lexicon(
    mode: Any, database: str, connection: psycopg.Connection[Any], feed: Feed
) -> None:
    with shard(database, Validation(mode)) as harness:
        harness.until(lambda: "shard-0" in harness.up)
        harness.spawn("feeder", Feeder, feed)
        harness.until(lambda: bool(harness.reports("feeder")))
    kept = {special("bad:post createdAt garbage"), special("bad:post rkey not tid")}
    assert (kept <= posts(connection)) is (mode != "on")
    counted = tally(connection)
    # The profile under another key is refused before its lexicon is asked.
    assert counted.get("drop.lexicon", 0) == (len(REFUSED) - 1 if mode == "on" else 0)
    assert counted.get("lexicon.reported", 0) == (len(REFUSED) - 1 if mode == "report" else 0)


def test_lexicons_that_cannot_be_used_end_the_run_with_the_code_of_a_bad_setting(
    database: str, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.json").write_text("{")
    with shard(database, Validation("on", tmp_path)) as harness:
        harness.until(lambda: any(isinstance(said, Fail) for _, _, said in harness.said))
        (fail,) = [said for _, _, said in harness.said if isinstance(said, Fail)]
    assert fail.exit_code == 78
    assert "mine.json cannot be read as JSON" in fail.message


def test_the_settings_reach_the_shards(tmp_path: Path) -> None:
    variables = {
        "DATABASE_URL": "postgresql://nowhere",
        "SKYSHARD_LEXICON__MODE": "report",
        "SKYSHARD_LEXICON__FOLDER": str(tmp_path),
    }
    topology = build(load(None, variables), tmp_path, lambda _line: None)
    (shards,) = [group for group in topology.groups if group.name == "shard"]
    found = {child.settings.validation for child in shards.children if isinstance(child, ChildSpec)}
    assert found == {Validation("report", tmp_path)}


def test_validation_is_on_by_default_and_without_a_folder() -> None:
    settings = load().lexicon
    assert (settings.mode, settings.folder) == ("on", "")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("MODE", "loose", "lexicon.mode"), ("FOLDER", "/nowhere/at/all", "is not a folder")],
)
def test_an_impossible_setting_is_refused_before_anything_starts(
    name: str, value: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load(None, {f"SKYSHARD_LEXICON__{name}": value})


def test_what_is_only_reported_stands_in_the_report_of_the_run() -> None:
    assert summarise({"lexicon.reported": 3}, {})["lexicon_reported"] == 3
    assert "lexicon_reported" not in summarise({"drop.lexicon": 3}, {})
