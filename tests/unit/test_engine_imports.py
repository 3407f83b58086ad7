"""What the files of the engine may import, so that it stays what it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "engine"
FILES = sorted(ENGINE.glob("**/*.py"))
FOREIGN = {"actors", "config", "bench", "tests", "run", "psycopg", "psycopg_pool"}
PROCESSES = {"multiprocessing", "signal", "subprocess"}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, at its top or within."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_rules_look_at_real_files() -> None:
    assert "zmq" in imported(ENGINE / "transport.py")
    assert imported(ENGINE / "process.py") >= PROCESSES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_engine_knows_nothing_of_what_its_actors_do(path: Path) -> None:
    assert not imported(path) & FOREIGN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_sockets_and_processes_are_each_the_business_of_one_file(path: Path) -> None:
    packages = imported(path)
    assert "zmq" not in packages or path.name == "transport.py"
    assert not packages & PROCESSES or path.name == "process.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_the_engine_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 400
