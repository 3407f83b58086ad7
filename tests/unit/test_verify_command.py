"""`run.py verify`: what it prints, what it ends with, and what it logs meanwhile."""

import json
import logging
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

import run as program
from actors.commands.verify import ProgressLog, survey_lines
from actors.store.embedded import EmbeddedPostgres
from actors.store.verify import Difference, Step, Survey
from tests.small_network import POST
from tests.unit.index_for_verify import empty_tables, fill, run, schema_of

LIKES = "post_aggregations.like_count"


@pytest.fixture(scope="module")
def schema(embedded_server: EmbeddedPostgres) -> Iterator[str]:
    with schema_of(embedded_server, "test_verify_command") as conninfo:
        yield conninfo


@pytest.fixture
def index(schema: str) -> str:
    empty_tables(schema)
    fill(schema)
    return schema


def _verify(conninfo: str, *flags: str) -> Result:
    return CliRunner().invoke(program.cli, ["verify", *flags, "--database-url", conninfo])


def _damage(conninfo: str) -> None:
    run(conninfo, f"UPDATE post_aggregations SET like_count = 9 WHERE post_uri = '{POST}'")


def test_differences_are_lines_and_exit_code_1(index: str) -> None:
    assert (_verify(index).exit_code, _verify(index).stdout) == (0, "no differences\n")
    _damage(index)
    ended = _verify(index)
    assert ended.exit_code == 1
    assert ended.stdout == (
        f"{POST}: like_count in post_aggregations is 9, but 2 likes count for it\n1 difference\n"
    )


def test_a_repair_tells_what_it_mended_and_ends_with_0(index: str) -> None:
    _damage(index)
    ended = _verify(index, "--repair")
    assert ended.exit_code == 0
    assert ended.stdout == f"{LIKES}: mended 1\n1 difference, all mended\n"
    assert _verify(index).stdout == "no differences\n"
    assert _verify(index, "--repair").stdout == "no differences\n"


def test_reports_as_json(index: str) -> None:
    _damage(index)
    said = json.loads(_verify(index, "--json").stdout)
    assert [one["check"] for one in said["differences"]] == [LIKES]
    assert said["differences"][0]["expected"] == "2"
    mended = json.loads(_verify(index, "--repair", "--json").stdout)
    assert (mended["mended"], mended["left"], mended["walks"]) == ({LIKES: 1}, [], 2)
    assert json.loads(_verify(index, "--json").stdout)["differences"] == []


def test_a_long_list_is_cut_and_what_stays_open_is_told() -> None:
    survey = Survey()
    survey.differences = [Difference(LIKES, f"at://{n}", "", "1", "0") for n in range(30)]
    survey.unsettled = [Difference("posts.engine_invalid_reply", POST, "", "true", "false")]
    survey.cut = [LIKES]
    lines = survey_lines(survey)
    assert len(lines) == 20 + 4
    assert lines[20] == f"and 10 more of {LIKES}"
    assert lines[21].startswith(f"there may be more: {LIKES}")
    assert lines[22].startswith("1 difference left open")
    assert lines[23] == "30 differences"


def test_progress_is_logged_at_intervals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet, loud = ProgressLog("verify", 60.0), ProgressLog("verify", 0.0)
    step = Step(LIKES, 3, 100, 5_000_000, 10.0, 7)
    quiet.step(step)
    loud.step(step)
    assert [record.getMessage() for record in caplog.records] == [
        f"verify: 3 of 100 checks, 5,000,000 rows looked at, 500,000 a second, 7 found; now {LIKES}"
    ]
