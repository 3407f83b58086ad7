"""The settings of the label client, and how they reach it."""

from pathlib import Path

import pytest

from actors.label_client import LabelClientSettings
from actors.topology import build
from config.loader import ConfigError, load
from engine.child import ChildSpec

A, B = f"did:plc:{'a' * 24}", "did:web:labeler.example.com"


def client(tmp_path: Path, **variables: str) -> LabelClientSettings | None:
    """What the label client of a run gets; None where there is none."""
    given = {f"SKYSHARD_LABELS__{name.upper()}": value for name, value in variables.items()}
    settings = load(None, {"DATABASE_URL": "postgresql://nowhere", **given})
    for group in build(settings, tmp_path, lambda _line: None).groups:
        for child in group.children:
            if isinstance(child, ChildSpec) and child.name == "label_client":
                assert isinstance(child.settings, LabelClientSettings)
                return child.settings
    return None


def test_without_labelers_there_is_no_label_client(tmp_path: Path) -> None:
    assert client(tmp_path) is None
    assert client(tmp_path, labelers=" , ") is None


def test_labelers_of_the_settings_or_those_that_declare_themselves_bring_it_about(
    tmp_path: Path,
) -> None:
    made = client(tmp_path, labelers=f"{A}, {B},{A}", forward_url="http://127.0.0.1:1/x")
    assert made is not None
    assert (made.labelers, made.discover) == ((A, B), False)
    assert made.forward_url == "http://127.0.0.1:1/x"
    found = client(tmp_path, discover="true")
    assert found is not None
    assert (found.labelers, found.discover) == ((), True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LABELERS", "moderation.example.com", "is no did:plc or did:web"),
        ("LABELERS", "did:plc:short", "is no did:plc or did:web"),
        ("FORWARD_URL", "ftp://host", "an address like https://host, or nothing"),
        ("MAX_LABELERS", "0", "labels.max_labelers"),
        ("RECONNECT_MAX_SECONDS", "0.5", "must be at least"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(None, {f"SKYSHARD_LABELS__{name}": value})


def test_more_labelers_than_are_read_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be at least 2"):
        load(None, {"SKYSHARD_LABELS__LABELERS": f"{A},{B}", "SKYSHARD_LABELS__MAX_LABELERS": "1"})
