"""The monitor: its three pages over a real socket, and that each of them can fail."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.exposition import render
from actors.monitor import Monitor, MonitorOptions, demand_address
from actors.pages import REQUEST_BYTES, Page, PageServer
from actors.verdict import Received, health, readiness
from actors.vitals import CONNECTED, EVENTS, LAG, UNKNOWN_LAG, vitals
from engine.actor import Actor
from engine.child import ChildSpec, ServiceFailed
from engine.message import Message
from engine.metrics import Metrics
from engine.rundir import RunDirectory
from engine.status import ChildStatus, Status
from engine.supervisor import Supervisor
from engine.topology import Group, Topology

PATIENCE: Final = 120.0


def child(name: str, **changes: Any) -> ChildStatus:
    fields: dict[str, Any] = {
        "name": name,
        "group": name,
        "service": False,
        "state": "ready",
        "generation": 1,
        "pid": 1,
        "up_seconds": 1.0,
        "silent_seconds": 0.1,
        "restarts": 0,
        "restart_in_seconds": None,
        "last_exit": "",
        "handled": 0,
        "backlog": 0,
        "note": "",
        "waiting_ms": {},
        "isolates": (),
        "memory_bytes": 1000,
        "metrics": Metrics().snapshot(),
    }
    return ChildStatus(**(fields | changes))


def ingest(*, lag: float | None = 1.0, connected: bool = True, **changes: Any) -> ChildStatus:
    metrics = Metrics()
    metrics.counter(EVENTS).add(500)
    metrics.gauge(CONNECTED).set(connected)
    if lag is not None:
        metrics.gauge(LAG).set(lag)
    return child("ingest", metrics=metrics.snapshot(), **changes)


def system(*children: ChildStatus, phase: str = "running", age: float = 0.1) -> Received:
    return Received(Status(1.0, 2.0, phase, 3, "", children), age)


def test_health_is_good_only_while_every_actor_is_up_and_works() -> None:
    good = system(ingest(), child("shard-0"), child("postgres", service=True, silent_seconds=99.0))
    assert health(good, silent_seconds=30).healthy


@pytest.mark.parametrize(
    ("received", "says"),
    [
        (Received(None, 1.0), "no status"),
        (system(child("shard-0"), age=9.0), "supervisor: silent for 9 s"),
        (system(child("shard-0"), phase="stopping"), "stopping"),
        (system(child("shard-0", state="waiting", restart_in_seconds=2.0)), "shard-0: waiting"),
        (system(child("shard-0", state="starting", last_exit="SIGKILL")), "SIGKILL"),
        (system(child("shard-0", silent_seconds=31.0)), "shard-0: no progress for 31 s"),
        (system(child("postgres", service=True, state="starting")), "postgres: starting"),
    ],
)
def test_health_names_what_is_wrong(received: Received, says: str) -> None:
    state = health(received, silent_seconds=30)
    assert not state.healthy
    assert says in " ".join(state.problems)


@pytest.mark.parametrize(
    ("received", "database", "says"),
    [
        (Received(None, 1.0), "", "no status"),
        (system(ingest()), "connection refused", "database: connection refused"),
        (system(ingest(lag=301.0)), "", "301 s behind"),
        (system(ingest(lag=None, connected=False)), "", "not been reached"),
        (system(ingest(lag=UNKNOWN_LAG, connected=False)), "", "not been reached"),
        (system(ingest(), phase="starting"), "", "starting"),
    ],
)
def test_readiness_names_what_is_wrong(received: Received, database: str, says: str) -> None:
    state = readiness(received, database_problem=database, lag_limit=300)
    assert not state.ready
    assert says in " ".join(state.problems)


def test_a_short_loss_of_the_source_leaves_the_index_ready() -> None:
    state = readiness(system(ingest(connected=False)), database_problem="", lag_limit=300)
    assert state.ready
    assert (state.lag_seconds, state.connected) == (1.0, False)


def test_vitals_are_zero_before_ingest_has_reported() -> None:
    received = system(child("shard-0", restarts=2))
    assert received.status is not None
    assert (vitals(received.status).events, vitals(received.status).restarts) == (0, 2)


def test_the_metrics_of_all_processes_are_one_valid_page() -> None:
    def registry(factor: int) -> Metrics:
        metrics = Metrics()
        metrics.counter("drops_total", "Dropped", reason="too_big").add(3 * factor)
        histogram = metrics.histogram("batch_seconds", "Time of a batch", buckets=(0.1, 1.0))
        for value in (0.05, 0.5, 5.0):
            histogram.observe(value * factor)
        return metrics

    received = system(
        child("shard-0", metrics=registry(1).snapshot()),
        child("shard-1", metrics=registry(2).snapshot(), restarts=4, state="waiting"),
    )
    assert received.status is not None
    families = {
        family.name: family
        for family in text_string_to_metric_families(render(received.status, 0.5).decode())
    }
    drops = {s.labels["actor"]: s.value for s in families["skyshard_drops"].samples}
    assert drops == {"shard-0": 3, "shard-1": 6}
    buckets = [
        (s.labels["le"], s.value)
        for s in families["skyshard_batch_seconds"].samples
        if s.name.endswith("_bucket") and s.labels["actor"] == "shard-0"
    ]
    assert buckets == [("0.1", 1), ("1.0", 2), ("+Inf", 3)]
    ups = {s.labels["actor"]: s.value for s in families["skyshard_actor_up"].samples}
    assert ups == {"shard-0": 1, "shard-1": 0}
    assert families["skyshard_actor_restarts"].type == "counter"


@contextmanager
def serving(answer: Callable[[str], Page]) -> Iterator[tuple[str, int]]:
    server = PageServer("127.0.0.1", 0, answer)
    url = urlsplit(server.start())
    assert url.hostname is not None
    assert url.port is not None
    try:
        yield url.hostname, url.port
    finally:
        server.stop()


def hello(path: str) -> Page:
    return Page(HTTPStatus.OK, "text/plain", path.encode())


def ask(address: tuple[str, int], method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def raw(address: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def test_pages_are_served_to_get_and_head_only() -> None:
    with serving(hello) as address:
        assert ask(address, "GET", "/x?y=1") == (200, b"/x")
        assert ask(address, "HEAD", "/x") == (200, b"")
        assert ask(address, "POST", "/x")[0] == 405


def test_hostile_requests_get_an_answer_or_an_end_and_harm_nobody() -> None:
    with serving(hello) as address:
        assert b" 400 " in raw(address, b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b" 400 " in raw(address, b"GET /" + b"x" * REQUEST_BYTES * 2 + b" HTTP/1.1\r\n\r\n")
        assert raw(address, b"GET / HTTP/1.1\r\n") == b""
        with socket.create_connection(address, PATIENCE):
            assert ask(address, "GET", "/still")[0] == 200


def test_a_server_whose_pages_fail_ends_and_says_so() -> None:
    def broken(path: str) -> Page:
        raise KeyError(path)

    server = PageServer("127.0.0.1", 0, broken)
    url = urlsplit(server.start())
    assert url.port is not None
    server.check()
    assert ask(("127.0.0.1", url.port), "GET", "/x")[0] == 500
    with pytest.raises(RuntimeError, match="has ended") as caught:
        _wait_until_raises(server.check)
    assert isinstance(caught.value.__cause__, KeyError)


def _wait_until_raises(check: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        check()
        time.sleep(0.01)


class Nothing(Message, frozen=True):
    """A topology has messages; these actors say none."""


class Sleeper(Actor):
    """Works until a file appears, then hangs until another does, then finishes the run."""

    settings: Path

    def on_start(self) -> None:
        if (self.settings / "hang").exists():
            deadline = time.monotonic() + PATIENCE
            while not (self.settings / "finish").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.context.finish({"slept": True})
        self.context.after(0.02, self.on_start)


def _probe(path: Path) -> str:
    return "it is away" if (path / "no_database").exists() else ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _topology(path: Path, port: int) -> Topology:
    options = MonitorOptions("127.0.0.1", port, 300.0, 3.0, partial(_probe, path))
    monitor = ChildSpec("monitor", Monitor, options, wants_status=True)
    return Topology(
        (Group("sleeper", (ChildSpec("sleeper", Sleeper, path),)), Group("monitor", (monitor,))),
        messages=(Nothing,),
    )


def test_the_monitor_of_a_real_system_sees_an_actor_hang_and_the_database_go(
    tmp_path: Path,
) -> None:
    port = _free_port()
    seen: list[str] = []
    (tmp_path / "no_database").touch()

    def look(status: Status) -> None:
        if status.child("monitor").state != "ready" or status.phase != "running":
            return
        code, body = ask(("127.0.0.1", port), "GET", "/health")
        ready_code, ready = ask(("127.0.0.1", port), "GET", "/ready")
        problems = " ".join(json.loads(body)["problems"])
        if code == 200 and "well" not in seen:
            seen.append("well")
        if ready_code == 503 and b"it is away" in ready and "no database" not in seen:
            seen.append("no database")
        if {"well", "no database"} <= set(seen):
            (tmp_path / "hang").touch()
        if code == 503 and "sleeper: no progress" in problems:
            seen.append("hung")
            assert (
                b'skyshard_actor_up{actor="sleeper"} 1.0'
                in (ask(("127.0.0.1", port), "GET", "/metrics")[1])
            )
            (tmp_path / "finish").touch()

    with RunDirectory() as run:
        outcome = Supervisor(_topology(tmp_path, port), run.path, on_tick=look).run()
    assert outcome.report == {"slept": True}
    assert set(seen) == {"well", "no database", "hung"}


def test_a_port_in_use_ends_the_run_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, RunDirectory() as run:
        port = taken.getsockname()[1]
        outcome = Supervisor(_topology(tmp_path, port), run.path).run()
    assert outcome.exit_code == 75
    assert outcome.message == (
        f"127.0.0.1 port {port} is taken (by another skyshard?): set SKYSHARD_MONITOR__PORT=0 for"
        " any free one, or SKYSHARD_MONITOR__ENABLED=false"
    )


def test_an_address_of_another_machine_is_refused_before_anything_starts() -> None:
    # 192.0.2.0/24 is for documentation: no machine has it (RFC 5737).
    with pytest.raises(ServiceFailed, match=r"cannot listen on 192\.0\.2\.1 port 0") as refused:
        demand_address("192.0.2.1", 0)
    assert refused.value.exit_code == 78
