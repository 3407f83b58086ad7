"""Who of the program asks the network, and when nobody does."""

from pathlib import Path

from actors.topology import build
from bench.relay_frames import write_capture
from config.loader import load

ASKING = {"resolver", "pds_fetcher", "label_client"}


def actors_that_ask(tmp_path: Path, source: str, **variables: str) -> set[str]:
    """Those of a run with this source, with the defaults and these variables."""
    given = {f"SKYSHARD_{name.upper()}": value for name, value in variables.items()}
    environ = {"DATABASE_URL": "postgresql://nowhere", "SKYSHARD_RUN__SOURCE": source, **given}
    settings = load(None, environ)
    topology = build(settings, tmp_path, lambda _line: None)
    assert ("pds_fetcher" in {group.name for group in topology.groups}) == any(
        edge.sender == "pds_fetcher" for edge in topology.edges
    )
    return {group.name for group in topology.groups} & ASKING


def test_a_live_index_looks_accounts_up_and_fetches_what_is_missing(tmp_path: Path) -> None:
    assert actors_that_ask(tmp_path, "wss://relay.example") == {"resolver", "pds_fetcher"}


def test_the_demo_and_captures_ask_nobody(tmp_path: Path) -> None:
    capture = tmp_path / "capture.frames"
    write_capture(capture, [])
    assert actors_that_ask(tmp_path, "demo") == set()
    assert actors_that_ask(tmp_path, str(capture)) == set()


def test_each_of_those_who_ask_has_a_switch(tmp_path: Path) -> None:
    off = {"resolver__enabled": "false", "fetcher__enabled": "false"}
    assert actors_that_ask(tmp_path, "wss://relay.example", **off) == set()
    labels = {"labels__discover": "true", **off}
    assert actors_that_ask(tmp_path, "wss://relay.example", **labels) == {"label_client"}
