"""What may import what: the rules that keep the parts of the program apart.

Those of `engine` itself are held by test_engine_imports.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ("engine", "actors", "config", "bench")
# One process each, all made of messages: none knows another's code.
ACTORS = {
    "ingest",
    "label_client",
    "monitor",
    "notifier",
    "pds_fetcher",
    "pending",
    "resolver",
    "shard",
    "user_gate",
}
SHARED_BY_RECORDS = {"record", "fields"}
# The wire format is computed: these are the modules it may use, and none of them does I/O.
PURE = {
    "base64",
    "bisect",
    "coincurve",
    "collections",
    "cryptography",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "libipld",
    "msgspec",
    "re",
    "regex",
    "typing",
}
PROCESSES = {"multiprocessing", "signal", "subprocess"}
# Beside engine/process.py. The embedded PostgreSQL is a program of its own, and its guard another:
# they are started, watched and ended by the few files that know how to end a PostgreSQL.
MAY_TOUCH_PROCESSES = {
    "engine/process.py": PROCESSES,
    "actors/store/account.py": {"subprocess"},
    "actors/store/binaries.py": {"subprocess"},
    "actors/store/embedded.py": {"signal", "subprocess"},
    "actors/store/guard.py": {"signal", "subprocess"},
    "actors/store/leftover.py": {"signal"},
    # A signal's number becomes the exit code of the program.
    "run.py": {"signal"},
    # Benchmarks start the program that they measure.
    "bench/end_to_end.py": {"subprocess"},
    "bench/memory.py": {"subprocess"},
    "bench/pending.py": {"subprocess"},
    "bench/personal.py": {"subprocess"},
    "bench/relay_process.py": {"subprocess"},
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def program() -> list[Path]:
    files = [path for folder in PROGRAM for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*files, ROOT / "run.py"]


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its top or within."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            found.add(node.module or "")
            # `from actors import shard` names the module in its second half.
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


FILES = program()


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).glob("*.py"))


def test_the_rules_look_at_real_files() -> None:
    assert len(FILES) > 100
    assert {path.stem for path in files("actors")} >= ACTORS
    assert "actors.records.record" in imported(ROOT / "actors/records/like.py")
    for name, modules in MAY_TOUCH_PROCESSES.items():
        assert packages(ROOT / name) & PROCESSES == modules, f"{name} needs less, or more"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sockets_databases_and_processes_are_each_the_business_of_few_files(path: Path) -> None:
    name, used = name_of(path), packages(path)
    assert "zmq" not in used or name == "engine/transport.py"
    if not name.startswith(("actors/store/", "bench/")):
        assert not used & {"psycopg", "psycopg_pool"}
    # One client for all that is asked of the network, so that its limits hold everywhere.
    if not name.startswith("actors/outbound/"):
        assert not used & {"dns", "httpcore", "httpx", "requests", "urllib3"}
    assert used & PROCESSES <= MAY_TOUCH_PROCESSES.get(name, set())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_of_the_program_imports_a_test_or_but_for_benchmarks_a_benchmark(
    path: Path,
) -> None:
    used = packages(path)
    assert "tests" not in used
    assert "bench" not in used or name_of(path).startswith("bench/")


@pytest.mark.parametrize("path", files("actors/atproto"), ids=name_of)
def test_the_wire_format_does_no_input_or_output_and_knows_nothing_of_the_rest(
    path: Path,
) -> None:
    for name in imported(path):
        assert (
            name.partition(".")[0] in PURE or name == "actors" or name.startswith("actors.atproto")
        ), f"{name_of(path)} imports {name}"
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("path", files("actors/records"), ids=name_of)
def test_a_record_file_imports_no_other_and_nothing_that_does_input_or_output(path: Path) -> None:
    if path.stem in {"__init__", *SHARED_BY_RECORDS}:
        return
    for name in imported(path):
        if name.startswith("actors.records."):
            assert name.split(".")[2] in SHARED_BY_RECORDS, f"{name_of(path)} imports {name}"
        assert not name.startswith(("actors.store", "engine", "config"))


@pytest.mark.parametrize("path", files("actors"), ids=name_of)
def test_an_actor_imports_no_other_actor(path: Path) -> None:
    # The topology is the one place that knows them all.
    if path.stem == "topology":
        return
    others = {f"actors.{actor}" for actor in ACTORS - {path.stem}}
    assert not imported(path) & others


@pytest.mark.parametrize("path", sorted((ROOT / "actors/store").rglob("*.py")), ids=name_of)
def test_the_store_knows_no_actor(path: Path) -> None:
    # The outbox holds messages for others.
    allowed = (
        "actors.store",
        "actors.records",
        "actors.atproto",
        "actors.drops",
        "actors.messages",
    )
    for name in imported(path):
        if name.startswith("actors."):
            assert name.startswith(allowed), f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 400
