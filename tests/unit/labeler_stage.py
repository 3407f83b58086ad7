"""A stage for the label client: the real actor, a database, labelers and a directory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from actors.label_client import LabelClient, LabelClientSettings
from actors.labeler_reader import ReaderSettings
from actors.messages import MESSAGES
from actors.store.session import SessionSettings
from engine.restarts import Backoff
from tests.servers.client import network
from tests.servers.directory import PlcDirectory
from tests.servers.labeler import Labeler
from tests.servers.labels import LabelKey, labeler_document
from tests.unit.engine_harness import Harness
from tests.writing import make_index

CLIENT = "label_client"
EPOCH = 7
"""Of every run of the harness."""
SUBJECT = "did:plc:drlgzakhpthmyl7t7brzakyg"
DIDS = [f"did:plc:{letter * 24}" for letter in "abcd"]
CTS = "2026-01-01T00:00:00.000Z"


class Stage:
    """`labelers` by DID; those that are `added` before the start are read."""

    def __init__(self, stack: ExitStack, conninfo: str, crash: str) -> None:
        self._stack = stack
        self.conninfo = conninfo
        self.connection = stack.enter_context(
            psycopg.connect(make_index(conninfo), autocommit=True)
        )
        self.connection.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        self.directory = stack.enter_context(PlcDirectory())
        self.harness = stack.enter_context(Harness([], MESSAGES, crash))
        self.labelers: dict[str, Labeler] = {}
        self.keys: dict[str, LabelKey] = {}

    def add(self, did: str, *frames: bytes) -> Labeler:
        """A labeler, known to the directory."""
        labeler = self._stack.enter_context(Labeler(frames))
        self.labelers[did] = labeler
        self.keys[did] = LabelKey(did)
        self.document(did)
        return labeler

    def document(self, did: str, **changes: Any) -> None:
        """Have the directory serve the document of a labeler, with another `key` or `endpoint`."""
        key = self.keys[did] = changes.get("key", self.keys[did])
        endpoint = changes.get("endpoint", self.labelers[did].url)
        self.directory.documents[did] = labeler_document(did, endpoint, key)

    def resolved(self, did: str, *, age: float = 60.0, due: bool = False) -> None:
        """Have the resolver have found out of a labeler what holds now, `age` seconds ago."""
        self.connection.execute(
            "INSERT INTO engine_identities (did, plc, labeler, label_key, checked_at, next_check)"
            " VALUES (%s, true, %s, %s, now() - %s * interval '1 s', now() + %s * interval '1 s')"
            " ON CONFLICT (did) DO UPDATE SET labeler = excluded.labeler,"
            " label_key = excluded.label_key, checked_at = excluded.checked_at,"
            " next_check = excluded.next_check",
            [did, self.labelers[did].url, self.keys[did].multikey, age, -1 if due else 3600],
        )

    def label(self, did: str, val: str, **fields: Any) -> dict[str, Any]:
        """A label as a labeler signs it."""
        return self.keys[did].make(did, fields.pop("uri", SUBJECT), val, **fields)

    def publish(self, did: str, *vals: str, **fields: Any) -> None:
        """Have a labeler publish a label in a frame of its own, for each value."""
        for val in vals:
            self.labelers[did].publish(self.label(did, val, **fields))

    def start(self, **changes: Any) -> None:
        """Start the actor."""
        self.harness.start(CLIENT, LabelClient, self.settings(**changes))

    def settings(self, **changes: Any) -> LabelClientSettings:
        """The settings of the actor, quick enough for a test; some for [network] among them."""
        wide = {name: changes.pop(name) for name in ("allow_private_hosts",) if name in changes}
        given: dict[str, Any] = {
            "session": SessionSettings(
                self.conninfo, statement_timeout_seconds=20, outage_seconds=60
            ),
            "network": network(
                **{
                    "allow_private_hosts": True,
                    "plc_url": self.directory.url,
                    "requests_per_second": 1000.0,
                    "breaker_failures": 1000,
                    **wide,
                }
            ),
            "labelers": tuple(self.labelers),
            "discover": False,
            "max_labelers": 10,
            "forward_url": "",
            "reader": ReaderSettings(Backoff(0.02, 0.1), 60.0, 5 * 1024 * 1024),
            "look_seconds": 0.1,
            "expiry_seconds": 0.1,
        }
        return LabelClientSettings(**(given | changes))

    def values(self, did: str | None = None) -> list[str]:
        """The values of the labels that hold."""
        found = self.connection.execute(
            "SELECT val FROM labels WHERE NOT neg AND (src = %s OR %s::text IS NULL) ORDER BY val",
            [did, did],
        ).fetchall()
        return [val for (val,) in found]

    def until_values(self, *vals: str, did: str | None = None) -> None:
        """Wait until exactly these labels hold."""
        self.harness.until(lambda: self.values(did) == sorted(vals))

    def cursor(self, did: str) -> int | None:
        """How far a labeler has been read."""
        row = self.connection.execute(
            "SELECT cursor FROM engine_labelers WHERE did = %s", [did]
        ).fetchone()
        return None if row is None else row[0]

    def problem(self, did: str) -> str:
        """What keeps a labeler from being read, "" for nothing."""
        row = self.connection.execute(
            "SELECT problem FROM engine_labelers WHERE did = %s", [did]
        ).fetchone()
        return "" if row is None or row[0] is None else str(row[0])

    def metric(self, name: str, **labels: str) -> float:
        """A figure of the actor."""
        return self.harness.metrics(CLIENT).value(name, **labels)

    def until_metric(self, amount: float, name: str, **labels: str) -> None:
        """Wait until a figure is exactly this."""
        self.harness.until(lambda: self.metric(name, **labels) == amount)

    def refused(self, reason: str) -> float:
        """How many labels were refused for a reason."""
        figures = self.harness.metrics_now(CLIENT)
        return figures.value("labels_refused_total", reason=reason)


@contextmanager
def label_stage(conninfo: str, crash: str = "") -> Iterator[Stage]:
    """A stage in an empty database."""
    with ExitStack() as stack:
        yield Stage(stack, conninfo, crash)
