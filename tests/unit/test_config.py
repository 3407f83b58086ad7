"""The settings: their order, their checks, and the one line that an operator gets."""

import pickle
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config.expected import expected
from config.loader import DEFAULTS, KNOWN, ConfigError, load, show, variable
from config.settings import lookup


def refused(**layers: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**layers)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_setting_stands_in_default_toml_with_a_comment() -> None:
    lines = DEFAULTS.read_text(encoding="utf-8").splitlines()
    commented, section = set(), ""
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            assert above.startswith("#"), f"{section}: {line} has no comment"
            commented.add(f"{section}.{line.split(' = ')[0]}")
    assert commented == set(KNOWN)


def test_the_settings_travel_to_a_spawned_process() -> None:
    settings = load()
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own bytes


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[shard]\nbatch_commits = 11\nuser_cache = 22\n[log]\nlevel = "debug"\n')
    settings = load(
        file,
        {"SKYSHARD_SHARD__USER_CACHE": "33", "SKYSHARD_LOG__LEVEL": "error"},
        {"log.level": ("--log-level", "warning")},
    )
    assert settings.shard.batch_commits == 11
    assert settings.shard.user_cache == 33
    assert settings.log.level == "warning"
    assert settings.shard.batch_linger_ms == load().shard.batch_linger_ms


def test_database_url_is_read_and_the_settings_own_variable_beats_it() -> None:
    plain = {"DATABASE_URL": "postgresql://one"}
    assert load(None, plain).run.database_url == "postgresql://one"
    both = {**plain, "SKYSHARD_RUN__DATABASE_URL": "postgresql://two"}
    assert load(None, both).run.database_url == "postgresql://two"
    assert load(None, {"DATABASE_URL": ""}).run.database_url == ""


def test_a_database_url_is_never_shown() -> None:
    settings = load(None, {"DATABASE_URL": "postgresql://me:hunter2@host/db"})
    assert "hunter2" not in str(show(settings))


def test_sizes_and_durations_are_read_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[ingest]\nwindow_bytes = "64MiB"\nstall_seconds = "2m"\n')
    settings = load(file, {"SKYSHARD_INGEST__CHECKPOINT_SECONDS": "500ms"})
    assert settings.ingest.window_bytes == 64 * 1024 * 1024
    assert settings.ingest.stall_seconds == 120
    assert settings.ingest.checkpoint_seconds == 0.5


@pytest.mark.parametrize("key", sorted(KNOWN))
def test_every_setting_has_an_environment_variable(key: str) -> None:
    value = lookup(load(), key)
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    assert lookup(load(None, {variable(key): text}), key) == value


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SKYSHARD_SHARDS": "3"}, r"^SKYSHARD_SHARDS: .*SKYSHARD_RUN__SHARDS\?"),
        ({"SKYSHARD_RUN__SHARD": "3"}, r"^SKYSHARD_RUN__SHARD: .*SKYSHARD_RUN__SHARDS\?"),
        ({"SKYSHARD_RUN__SHARDS": "-1"}, r"^SKYSHARD_RUN__SHARDS: run\.shards .*from 0 to 256"),
        ({"SKYSHARD_RUN__SHARDS": "many"}, r"a whole number from 0 to 256 \(0: one per core\)$"),
        ({"SKYSHARD_RUN__SHARDS": ""}, r"^SKYSHARD_RUN__SHARDS: .*expected a whole number"),
        ({"SKYSHARD_MONITOR__ENABLED": "maybe"}, r"expected true or false$"),
        ({"SKYSHARD_INGEST__STALL_SECONDS": "-1"}, r"like 90s or 2h, above 0, up to 31536000$"),
        ({"SKYSHARD_CONFIG": "my.toml"}, r"use --config FILE$"),
        ({"SKYSHARD_NONSENSE": "1"}, r"no setting has this environment variable$"),
        ({"SKYSHARD_LOG__FORMAT": "xml"}, r"expected one of text, json"),
        ({"SKYSHARD_EMBEDDED__WORK_MEM": "16M"}, r"like 64kB"),
        ({"SKYSHARD_INGEST__STALL_SECONDS": "nan"}, r"SKYSHARD_INGEST__STALL_SECONDS"),
        ({"SKYSHARD_INGEST__STALL_SECONDS": "5 parsecs"}, r"no duration"),
        ({"SKYSHARD_INGEST__BATCH_FRAMES": "9999"}, r"^SKYSHARD_INGEST__BATCH_FRAMES: .*at least"),
        ({"SKYSHARD_SOURCE__START": "yesterday"}, r"is no start"),
        ({"SKYSHARD_SOURCE__START": str(2**53)}, r"beyond"),
        ({"SKYSHARD_RUN__SOURCE": "https://host"}, r"wss://host"),
        ({"SKYSHARD_RUN__SOURCE": "no/such.frames"}, r"no capture file"),
        ({"SKYSHARD_NETWORK__PLC_URL": "plc.directory"}, r"https://host"),
        (
            {"SKYSHARD_VERIFY__MODE": "full", "SKYSHARD_RESOLVER__ENABLED": "false"},
            r"VERIFY__MODE.*resolver",
        ),
    ],
)
def test_an_impossible_variable_is_one_line_that_names_it(
    environ: Mapping[str, str], says: str
) -> None:
    assert re.search(says, refused(environ=environ))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[shards]\ncount = 2\n", r"no section \[shards\].*\[?shard"),
        ("shards = 2\n", r"stands outside a section.*run\.shards\?"),
        ("[ingest]\nshards = 2\n", r"no setting ingest\.shards.*run\.shards\?"),
        ("[shard]\nbatch_comits = 2\n", r"shard\.batch_commits\?"),
        ('[shard]\nbatch_commits = "2"\n', r"expected a whole number from 1 to 100000$"),
        ("[shard]\nbatch_commits = true\n", r"= true cannot be used: expected a whole number"),
        ("[shard]\nnonsense = 1\n", r"no setting shard\.nonsense$"),
        ("[monitor]\nhost = 1\n", r"expected text$"),
        ("[shard\n", r"is not TOML.*line 1"),
        ("[source]\nstart = 1.5\n", r"source\.start = 1\.5"),
    ],
)
def test_an_impossible_file_is_one_line_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    message = refused(config_file=file)
    assert message.startswith(str(file))
    assert re.search(says, message)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in refused(config_file=tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff\n")
    assert "not UTF-8" in refused(config_file=tmp_path / "latin.toml")


def test_other_variables_of_the_program_are_no_settings() -> None:
    load(None, {"SKYSHARD_CRASH_POINTS": "x@y:1", "PATH": "/bin"})


@pytest.mark.parametrize("key", sorted(KNOWN))
def test_every_setting_can_be_told_in_words(key: str) -> None:
    words = expected(key, KNOWN[key])
    assert "None" not in words
    assert " int" not in words


def test_flags_are_named_by_their_flag() -> None:
    message = refused(flags={"run.shards": ("--shards", 1000)})
    assert message.startswith("--shards: run.shards = 1000 cannot be used")


def test_default_toml_is_plain_toml() -> None:
    assert set(tomllib.loads(DEFAULTS.read_text())) == {key.partition(".")[0] for key in KNOWN}
