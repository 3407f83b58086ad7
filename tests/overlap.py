"""Transactions that overlap: writers in threads, held at crash points until a test lets them go."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from actors.store.batch import Outcome
from actors.store.fence import Fence
from actors.store.session import Connection
from actors.store.writer import Writer
from tests.writing import GATE, decoded, session

SECONDS = 120.0


class Pause:
    """A crash point at which a writer waits."""

    def __init__(self, at: str) -> None:
        self._at = at
        self.reached = threading.Event()
        self.release = threading.Event()

    def __call__(self, name: str) -> None:
        if name == self._at and not self.reached.is_set():
            self.reached.set()
            assert self.release.wait(SECONDS), "nobody let the writer go on"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in {SECONDS:.0f} s: not {what}"
        time.sleep(0.005)


def waits_for_a_lock(observer: Connection, pid: int) -> bool:
    """Whether this backend can do no more without another's leave."""
    row = observer.execute(
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [pid]
    ).fetchone()
    return row is not None and bool(row[0])


@dataclass
class Applying:
    """A batch that a thread applies on a connection of its own."""

    index: str
    epoch: int
    actor: str
    frames: Sequence[bytes]
    crash_point: Callable[[str], None] = lambda _name: None
    outcome: Outcome | None = None
    error: BaseException | None = None
    pid: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with session(self.index, self.actor) as connection:
                for name, value in self.settings.items():
                    connection.execute("SELECT set_config(%s, %s, false)", [name, value])
                fence = Fence(self.actor, self.epoch, 1)
                writer = Writer(connection, fence, crash_point=self.crash_point)
                self.pid = connection.info.backend_pid
                batch = decoded(self.frames)
                dids = msgspec.json.encode(sorted(batch.authors | batch.subjects))
                self.outcome = writer.apply(batch.changes, [(GATE, dids)])
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self.error = error

    def wait_for_it(self) -> None:
        """Wait until it is done, or can do no more without another's leave."""
        with session(self.index, "observer") as observer:
            wait_until(
                lambda: not self.thread.is_alive() or waits_for_a_lock(observer, self.pid),
                "met the other's locks, or done",
            )

    def done(self) -> Outcome:
        self.thread.join(SECONDS)
        if self.error is not None:
            raise self.error
        assert self.outcome is not None, f"{self.actor} is stuck"
        return self.outcome
