"""An index that labels are written to, as the label client does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from actors.store.fence import Fence
from actors.store.labels import LabelWriter
from actors.store.session import Connection
from tests.writing import begin_run, claimed, empty, make_index, session

CLIENT = "label_client"


@dataclass
class LabelIndex:
    """The label client's connection, its right to write, and a writer."""

    connection: Connection
    fence: Fence
    writer: LabelWriter


@contextmanager
def label_index(conninfo: str) -> Iterator[LabelIndex]:
    """Open an index, which is emptied first."""
    empty(conninfo)
    with session(conninfo, CLIENT) as connection:
        fence = claimed(connection, CLIENT, begin_run(conninfo))
        yield LabelIndex(connection, fence, LabelWriter(connection, fence))


@pytest.fixture(scope="module")
def index(module_database: str) -> str:
    """One index for all tests of a file."""
    return make_index(module_database)


@pytest.fixture
def here(index: str) -> Iterator[LabelIndex]:
    """That index, emptied for each test."""
    with label_index(index) as opened:
        yield opened
