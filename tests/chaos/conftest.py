"""What the tests with processes share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def arena() -> Iterator[Path]:
    """A directory with a path short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="arena-") as path:
        yield Path(path)
