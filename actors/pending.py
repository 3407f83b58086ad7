"""The pending-operations registry: who waits for what, and whose judgement rests on what changed.

A shard commits first and tells the registry afterwards, through the outbox; the registry looks what
that makes possible and has the shards of the authors do it. A row of the outbox goes only when all
that came of it is acked, so a crash anywhere has it looked at again, which does no harm: a claim
that was made finds no entry, a judgement that was made changes nothing.

Each minute it removes what is too old or too much, and looks whether a subject came unnoticed.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from actors.messages import RegistryWork
from actors.outbox_actor import OutboxActor, Work
from actors.settling import Settling
from actors.store import outbox, registry
from actors.store.session import Connection, SessionSettings, TooSlow
from actors.upkeep import Bounds, Upkeep
from actors.waiting_filter import WaitingFilter
from engine.address import Address
from engine.context import Context

log = structlog.get_logger()

# What was found and is not settled: no more is looked for beyond this. Some 200 bytes each.
MAX_PIECES: Final = 40_000
# Before a look that took too long is tried again.
SLOW_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class PendingSettings:
    """What the registry needs to know; see config/default.toml for the meaning of each."""

    session: SessionSettings
    shards: int
    bounds: Bounds


@dataclass(slots=True)
class _Works:
    """Work that is begun: its rows of the outbox, and what it says."""

    rows: list[int]
    bodies: list[RegistryWork]


class Pending(OutboxActor[RegistryWork]):
    """The registry."""

    def __init__(self, context: Context, settings: PendingSettings) -> None:
        self._filter = WaitingFilter(settings.bounds.max_rows)
        self._settling = Settling(context, settings.shards)
        # Work that is to be looked at when there is room for what may be found.
        self._unlooked: deque[_Works] = deque()
        super().__init__(context, settings, settings.session, RegistryWork)
        self._upkeep = Upkeep(
            context, self.attempt, self.fence, self._filter, self._settling, settings.bounds
        )

    def prepare(self, connection: Connection) -> None:
        """Make the connection one that looks rows up by key."""
        registry.prepare(connection)

    def on_start(self) -> None:
        """Take over, and begin with upkeep, which fills the filter first."""
        self._settling.start()
        super().on_start()
        self._upkeep.begin()

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:  # noqa: ARG002 - the engine's signature
        """Send a shard that came up what waits for it."""
        if up:
            self._settling.pump()

    def on_drain(self) -> None:
        """Do what can be done; the rest lies in the outbox, and the shards may be gone already."""
        super().on_drain()
        self.context.stop()

    # --- work of the outbox

    def do(self, connection: Connection, works: Sequence[Work[RegistryWork]]) -> Collection[int]:
        """Look what work makes possible; that of which nothing comes is finished at once."""
        begun = _Works([work.row for work in works], [work.body for work in works])
        for body in begun.bodies:
            self._filter.add(body.waiting)
            self._upkeep.heed(len(body.waiting))
        if self._settling.pieces >= MAX_PIECES:
            self._unlooked.append(begun)
            return ()
        found = self._look(connection, begun)
        if found.whole and not found.claims and not found.judge:
            with connection.transaction():
                self.fence.check(connection)
                outbox.finish(connection, begun.rows)
            return begun.rows
        self._settle(begun, found)
        return ()

    def _look(self, connection: Connection, begun: _Works) -> registry.Look:
        return registry.look(
            connection,
            begun.bodies,
            may_wait=self._filter.may_wait,
            progress=self.context.progress,
        )

    def _settle(self, begun: _Works, found: registry.Look) -> None:
        def done() -> None:
            self.context.crash_point("pending.settled")
            if found.whole:
                self.finish(begun.rows)
            else:
                self._unlooked.append(begun)
            self._look_again()

        self._settling.send(found.claims, found.judge, done)
        self.context.crash_point("pending.sent")

    def _look_again(self) -> None:
        """Look at work of which there is more, or that had to wait for room."""
        while self._unlooked and self._settling.pieces < MAX_PIECES:
            begun = self._unlooked.popleft()
            try:
                found = self.attempt(partial(self._look, begun=begun))
            except TooSlow as slow:
                log.warning("a look takes too long: it is tried again", why=str(slow))
                self._unlooked.append(begun)
                self.context.after(SLOW_SECONDS, self._look_again)
                return
            if found.claims or found.judge:
                self._settle(begun, found)
            else:
                self.finish(begun.rows)
