"""What --source and the start options mean, and durations and sizes."""

import re
from pathlib import Path

import pytest

from config.source import SUBSCRIBE_REPOS, Source, Start, parse_source, parse_start
from config.units import parse_duration, parse_size, show_duration

RELAY = Source("relay", "wss://host" + SUBSCRIBE_REPOS, "host")


@pytest.mark.parametrize(
    ("text", "address", "host"),
    [
        ("wss://bsky.network", "wss://bsky.network" + SUBSCRIBE_REPOS, "bsky.network"),
        ("wss://bsky.network/", "wss://bsky.network" + SUBSCRIBE_REPOS, "bsky.network"),
        ("wss://bsky.network:443", "wss://bsky.network:443" + SUBSCRIBE_REPOS, "bsky.network"),
        ("ws://127.0.0.1:9001", "ws://127.0.0.1:9001" + SUBSCRIBE_REPOS, "127.0.0.1:9001"),
        ("ws://[::1]:9001", "ws://[::1]:9001" + SUBSCRIBE_REPOS, "[::1]:9001"),
        ("ws://host/other/path", "ws://host/other/path", "host"),
        ("WSS://HOST" + SUBSCRIBE_REPOS, "wss://HOST" + SUBSCRIBE_REPOS, "host"),
    ],
)
def test_the_path_of_subscriberepos_is_added_when_missing(
    text: str, address: str, host: str
) -> None:
    assert parse_source(text) == Source("relay", address, host)


@pytest.mark.parametrize(
    "text", ["", " ", "ftp://host", "wss://", "ws://host:99999", "ws://host?cursor=1", "absent.gz"]
)
def test_a_source_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("http://bsky.network", "wss://bsky.network"),
        ("https://bsky.network", "wss://bsky.network"),
        ("http://localhost:2470", "ws://localhost:2470"),
        ("http://127.0.0.1:2470", "ws://127.0.0.1:2470"),
        ("http://[::1]:2470", "ws://[::1]:2470"),
        ("https://localhost", "wss://localhost"),
        ("http://", "wss://host"),
    ],
)
def test_an_address_of_the_web_suggests_that_of_a_relay(text: str, suggested: str) -> None:
    with pytest.raises(ValueError, match=f"write {re.escape(suggested)}$"):
        parse_source(text)


def test_a_folder_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))} is a folder"):
        parse_source(str(tmp_path))


def test_a_capture_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "some.frames"
    file.touch()
    source = parse_source(str(file))
    assert (source.kind, source.address) == ("capture", str(file))


def test_auto_is_live_for_a_relay_and_oldest_for_a_capture() -> None:
    assert parse_start("auto", RELAY) == Start("live")
    assert parse_start("auto", Source("capture", "/x", "capture:/x")) == Start("oldest")


def test_starts_are_live_oldest_a_cursor_or_a_duration() -> None:
    assert parse_start("live", RELAY) == Start("live")
    assert parse_start("oldest", RELAY) == Start("oldest")
    assert parse_start("0", RELAY) == Start("cursor", cursor=0)
    assert parse_start(2**53 - 1, RELAY) == Start("cursor", cursor=2**53 - 1)
    assert parse_start("2h", RELAY) == Start("since", seconds=7200)


def test_a_capture_cannot_start_live() -> None:
    with pytest.raises(ValueError, match="no live end"):
        parse_start("live", Source("capture", "/x", "capture:/x"))


def test_durations_and_sizes() -> None:
    written = ("90s", "1.5h", "3d", "10", "250ms", "2 w")
    assert [parse_duration(text) for text in written] == [90, 5400, 259200, 10, 0.25, 1209600]
    assert parse_size("32MiB") == 32 * 1024 * 1024
    assert parse_size("4kB") == 4000
    for wrong in ("", "h", "-1s", "1y", "1e3", "\u0661s"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2s"), (60, "1m"), (4320, "1h 12m"), (90000, "1d 1h"), (86460, "1d")],
)
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text
