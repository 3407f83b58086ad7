"""The server's settings: what the table promises is what the server has."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from actors.store.embedded import EmbeddedPostgres
from actors.store.server_settings import SERVER_SETTINGS, command_line
from config.loader import load
from tests.postgres_server import UNSAFE_BUT_FAST, SmallServer


def settings_of(words: list[str]) -> dict[str, str]:
    assert words[::2] == ["-c"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def test_the_options_of_the_configuration_are_passed_on() -> None:
    words = command_line(
        SmallServer(shared_buffers="77MB"),
        major=18,
        socket_folders=[Path("/run/x"), Path('/data, "new"/run')],
        log_folder=Path("/data/log"),
        overrides={"jit": "on"},
    )
    settings = settings_of(words)
    assert settings["shared_buffers"] == "77MB"
    assert settings["synchronous_commit"] == "on"
    assert settings["unix_socket_directories"] == '"/run/x", "/data, ""new""/run"'
    assert settings["listen_addresses"] == ""
    assert settings["jit"] == "on"


def test_the_section_of_the_configuration_is_what_the_server_takes(tmp_path: Path) -> None:
    options = load().embedded
    server = EmbeddedPostgres(tmp_path / "data", tmp_path / "run", options)
    words = command_line(
        options,
        major=18,
        socket_folders=[server.socket.path],
        log_folder=server.folder.log,
        overrides={},
    )
    assert settings_of(words)["shared_buffers"] == options.shared_buffers


def test_a_committed_transaction_is_safe_by_default() -> None:
    table = {name: value for name, value, _ in SERVER_SETTINGS}
    assert (table["fsync"], table["full_page_writes"]) == ("on", "on")


def test_every_setting_has_a_reason_and_stands_once() -> None:
    names = [name for name, _, _ in SERVER_SETTINGS]
    assert len(names) == len(set(names))
    assert all(why for _, _, why in SERVER_SETTINGS)


@pytest.mark.parametrize("fixture", ["embedded_server", "other_server"])
def test_the_server_has_the_settings_of_the_table(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    server: EmbeddedPostgres = request.getfixturevalue(fixture)
    with psycopg.connect(server.conninfo()) as connection:
        found = connection.execute("SELECT name, setting, source FROM pg_settings").fetchall()
    known: dict[str, str] = {name: setting for name, setting, _ in found}
    sources: dict[str, str] = {name: source for name, _, source in found}
    # Their names are read in any case, and shown in PostgreSQL's own.
    missing = {name for name, _, _ in SERVER_SETTINGS} - {name.lower() for name in known}
    assert missing <= {"log_startup_progress_interval"}
    assert all(sources[name] == "command line" for name in UNSAFE_BUT_FAST)
    assert known["listen_addresses"] == ""
    assert known["data_checksums"] == "on"
    assert known["fsync"] == "off"  # of the tests only


def test_the_server_is_made_for_utf8_in_the_c_locale(embedded_server: EmbeddedPostgres) -> None:
    with psycopg.connect(embedded_server.conninfo()) as connection:
        found = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
    assert found == ("UTF8", "C", "C")


def test_only_the_socket_lets_anybody_in(embedded_server: EmbeddedPostgres) -> None:
    rules = [
        line.split()
        for line in (embedded_server.folder.data / "pg_hba.conf").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert {rule[-1] for rule in rules if rule[0] == "local"} == {"trust"}
    assert {rule[-1] for rule in rules if rule[0] != "local"} == {"reject"}
    for socket in (embedded_server.socket, embedded_server.stable_socket):
        assert socket.path.stat().st_mode & 0o007 == 0
