"""What README.md names exists: metrics, settings, flags, tables, links."""

import re
from pathlib import Path

import click
import pytest

from actors.atproto.errors import Reason
from actors.drops import DropReason
from actors.store.schema import TABLES
from config.loader import KNOWN
from run import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CODE = "\n".join(
    path.read_text() for folder in ("actors", "engine") for path in (ROOT / folder).rglob("*.py")
)
SECTIONS = "|".join(sorted({name.partition(".")[0] for name in KNOWN}))


def named(pattern: str) -> list[str]:
    return sorted(set(re.findall(pattern, README)))


@pytest.mark.parametrize("name", named(r"`skyshard_([a-z_]+)"))
def test_a_metric_that_is_named_exists(name: str) -> None:
    # The channel of labels has the same prefix.
    assert name == "labels" or re.search(
        rf'"(skyshard_)?{name.removesuffix("_total")}(_total)?"', CODE
    )


@pytest.mark.parametrize("name", named(rf"`((?:{SECTIONS})\.[a-z_]+)[ `]"))
def test_a_setting_that_is_named_exists(name: str) -> None:
    others = {"users.engine_account_status", "run.py"}
    assert name in KNOWN or name in others


@pytest.mark.parametrize("name", sorted({key.partition(".")[0] for key in KNOWN}))
def test_every_section_is_named(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", named(r"(?:FROM |`)(engine_[a-z_]+)"))
def test_a_table_that_is_named_exists(name: str) -> None:
    columns = {"engine_invalid_reply"}
    assert name in TABLES or name in columns


@pytest.mark.parametrize("flag", named(r"[` ](--[a-z-]+)"))
def test_a_flag_that_is_named_exists(flag: str) -> None:
    commands: list[click.Command] = [cli]
    flags: set[str] = {"--now"}  # of systemctl
    while commands:
        command = commands.pop()
        flags |= {name for option in command.params for name in option.opts}
        if isinstance(command, click.Group):
            commands += command.commands.values()
    assert flag in flags


@pytest.mark.parametrize("line", re.findall(r"^\| drops of (.*?) \|", README, re.MULTILINE))
def test_reasons_of_drops_that_are_named_exist(line: str) -> None:
    reasons = set(re.findall(r"`([a-z_]+)`", line))
    assert reasons <= {*map(str, DropReason), *map(str, Reason)}


@pytest.mark.parametrize("path", named(r"\]\(([a-z][\w/.-]+)\)"))
def test_a_link_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
