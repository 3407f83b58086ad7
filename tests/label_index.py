"""An index that labels are written to, as the label client does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from actors.store.fence import Fence
from actors.store.labels import LabelWriter
from actors.store.session import Connection
from tests.writing import begin_run, claimed, empty, session

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
