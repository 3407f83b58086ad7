"""The monitor: /metrics, /health and /ready over HTTP, from the supervisor's status.

It owns nothing and says only what it was told within the last seconds: the status of the system,
which the supervisor sends each second, and whether the database answers, which it asks itself.
"""

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec
import structlog

from actors.exposition import CONTENT_TYPE, render
from actors.pages import Page, PageServer, listen
from actors.verdict import Received, health, readiness
from engine.actor import Actor
from engine.child import ServiceFailed
from engine.clock import Clock
from engine.context import Context
from engine.status import Status

CHECK_SECONDS: Final = 1.0
PROBE_SECONDS: Final = 3.0
PROBE_STALE_SECONDS: Final = 20.0
EXIT_TRY_LATER: Final = 75
EXIT_NO_PERMISSION: Final = 77
EXIT_CONFIG: Final = 78
_INDEX: Final = (
    b"/metrics  for Prometheus\n"
    b"/health   200 while every actor is up and works\n"
    b"/ready    200 while the index is near enough to live\n"
)

log = structlog.get_logger("monitor")


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """What the topology gives to the monitor.

    ``probe`` asks the database and returns "" or what is wrong with it (None: there is nothing to
    ask). ``silent_seconds`` is how long an actor may report no progress before the supervisor
    kills it; /health says so after half of that. ``ready_lag_seconds`` is how far behind the index
    may be for /ready.
    """

    host: str
    port: int
    ready_lag_seconds: float
    silent_seconds: float
    probe: Callable[[], str] | None = None


def demand_address(host: str, port: int) -> None:
    """Raise ServiceFailed where the pages could not be served there; nothing is served yet."""
    try:
        listen(host, port).close()
    except OSError as error:
        raise _refused(host, port, error) from error


def _refused(host: str, port: int, error: OSError) -> ServiceFailed:
    off = "SKYSHARD_MONITOR__ENABLED=false"
    if error.errno == errno.EADDRINUSE:
        return ServiceFailed(
            f"{host} port {port} is taken (by another skyshard?): set SKYSHARD_MONITOR__PORT=0 for"
            f" any free one, or {off}",
            EXIT_TRY_LATER,
        )
    return ServiceFailed(
        f"the monitor cannot listen on {host} port {port} ({error.strerror or error}): set"
        f" SKYSHARD_MONITOR__HOST or SKYSHARD_MONITOR__PORT, or {off}",
        EXIT_NO_PERMISSION if isinstance(error, PermissionError) else EXIT_CONFIG,
    )


class Monitor(Actor):
    """Give it `wants_status=True` in its child spec."""

    settings: MonitorOptions

    def __init__(self, context: Context, settings: MonitorOptions) -> None:
        super().__init__(context, settings)
        self._status: Status | None = None
        self._heard_at = context.clock.monotonic()
        self._probe = _Probe(settings.probe, context.clock)
        self._pages = PageServer(settings.host, settings.port, self._answer)
        self._requests = {
            path: context.metrics.counter("monitor_requests_total", "Pages served", page=path)
            for path in ("metrics", "health", "ready", "other")
        }

    def on_start(self) -> None:
        try:
            url = self._pages.start()
        except OSError as error:
            refused = _refused(self.settings.host, self.settings.port, error)
            self.context.give_up(refused.message, refused.exit_code)
        log.info("monitor listens", url=url)
        self._probe.start()
        self._check()

    def on_status(self, status: bytes) -> None:
        self._status = Status.decode(status)
        self._heard_at = self.context.clock.monotonic()

    def on_stop(self) -> None:
        self._pages.stop()

    def _check(self) -> None:
        self._pages.check()
        self._probe.check()
        self.context.after(CHECK_SECONDS, self._check)

    def _received(self) -> Received:
        return Received(self._status, self.context.clock.monotonic() - self._heard_at)

    def _answer(self, path: str) -> Page:
        """Runs in the server's thread and only reads; a status is replaced whole, never changed."""
        counter = self._requests.get(path[1:], self._requests["other"])
        counter.add()
        received = self._received()
        match path:
            case "/metrics" if received.status is None:
                return _text(HTTPStatus.SERVICE_UNAVAILABLE, b"no status has come yet\n")
            case "/metrics" if received.status is not None:
                page = render(received.status, received.age_seconds)
                return Page(HTTPStatus.OK, CONTENT_TYPE, page)
            case "/health":
                state = health(received, silent_seconds=self.settings.silent_seconds / 2)
                return _json(state, good=state.healthy)
            case "/ready":
                ready = readiness(
                    received,
                    database_problem=self._probe.problem(),
                    lag_limit=self.settings.ready_lag_seconds,
                )
                return _json(ready, good=ready.ready)
            case "/":
                return _text(HTTPStatus.OK, _INDEX)
            case _:
                return _text(HTTPStatus.NOT_FOUND, _INDEX)


class _Probe:
    """Asks the database now and then, in a thread: one that is away keeps its askers waiting."""

    def __init__(self, probe: Callable[[], str] | None, clock: Clock) -> None:
        self._ask = probe
        self._clock = clock
        self._last = "it has not been asked yet"
        self._asked_at = clock.monotonic()
        self._failure: Exception | None = None

    def start(self) -> None:
        if self._ask is not None:
            threading.Thread(target=self._run, args=(self._ask,), name="probe", daemon=True).start()

    def check(self) -> None:
        """Raises RuntimeError when the thread has ended by an error of its own."""
        if self._failure is not None:
            raise RuntimeError("the thread that asks the database has ended") from self._failure

    def problem(self) -> str:
        """What is wrong with the database, "" for nothing."""
        if self._ask is None:
            return ""
        age = self._clock.monotonic() - self._asked_at
        if age > PROBE_STALE_SECONDS:
            return f"a question has waited {age:.0f} s for its answer"
        return self._last

    def _run(self, ask: Callable[[], str]) -> None:
        pause = threading.Event()
        try:
            while True:
                self._last = ask()
                self._asked_at = self._clock.monotonic()
                pause.wait(PROBE_SECONDS)
        except Exception as error:  # noqa: BLE001 - check() raises it where the actor sees it
            self._failure = error


def _text(status: HTTPStatus, body: bytes) -> Page:
    return Page(status, "text/plain; charset=utf-8", body)


def _json(body: msgspec.Struct, *, good: bool) -> Page:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, "application/json", msgspec.json.encode(body) + b"\n")
