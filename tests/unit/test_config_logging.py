"""Log lines: for people, for machines, in children, and with hostile values."""

import io
import json
import logging
import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from config.logging import Logging, configure


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = True
    structlog.reset_defaults()


def logger() -> structlog.stdlib.BoundLogger:
    bound: structlog.stdlib.BoundLogger = structlog.get_logger()
    return bound


def test_json_lines_begin_with_the_event_and_are_in_utc() -> None:
    stream = io.StringIO()
    configure("info", "json", "shard-1", stream)
    logger().info("batch applied", commits=3)
    line = stream.getvalue()
    assert line.startswith('{"event": "batch applied"')
    fields = json.loads(line)
    assert fields["actor"] == "shard-1"
    assert fields["commits"] == 3
    assert fields["time"].endswith("Z")


def test_text_lines_name_the_actor_and_the_event() -> None:
    stream = io.StringIO()
    configure("info", "text", "ingest", stream)
    logger().warning("relay is gone", host="example.com", retry_seconds=0.5)
    assert "warning ingest     relay is gone host=example.com retry_seconds=0.5\n" in (
        stream.getvalue()
    )


def test_what_is_not_known_is_left_out_of_text_and_null_in_json() -> None:
    text, machine = io.StringIO(), io.StringIO()
    configure("info", "text", "supervisor", text)
    logger().info("postgres starts", pid=None, generation=1)
    assert text.getvalue().endswith(" postgres starts generation=1\n")
    configure("info", "json", "supervisor", machine)
    logger().info("postgres starts", pid=None, generation=1)
    assert json.loads(machine.getvalue())["pid"] is None


def test_nothing_from_outside_starts_a_line_or_colours_the_terminal() -> None:
    stream = io.StringIO()
    configure("info", "text", "", stream)
    logger().info("odd\nevent", handle="a\n2026 error\x1b[31m", other="\u202eevil")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


def test_a_crash_is_logged_with_its_traceback_in_both_forms() -> None:
    for form in ("text", "json"):
        stream = io.StringIO()
        configure("info", form, "", stream)
        try:
            int("lost")
        except ValueError:
            logger().exception("actor crashed")
        assert "Traceback" in stream.getvalue()
        assert "ValueError" in stream.getvalue()
        if form == "json":
            assert stream.getvalue().count("\n") == 1


def test_the_level_hides_what_is_below_it_and_foreign_loggers_speak_the_same() -> None:
    stream = io.StringIO()
    configure("warning", "json", "", stream)
    logger().info("hidden")
    logging.getLogger("somebody").warning("heard %d", 1)
    logging.getLogger("websockets.client").info("hidden")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "heard 1"


def _child(setup: Logging, path: str) -> None:
    with Path(path).open("w") as stream:
        setup("shard-7")
        for handler in logging.getLogger().handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.setStream(stream)
        structlog.get_logger().info("hello")


def test_a_spawned_child_sets_up_its_own_logging(tmp_path: Path) -> None:
    setup = Logging("info", "json")
    assert pickle.loads(pickle.dumps(setup)) == setup  # noqa: S301 - our own bytes
    path = tmp_path / "log"
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(setup, str(path)))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert json.loads(path.read_text())["actor"] == "shard-7"
