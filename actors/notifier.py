"""The notifier: makes notifications of what shards have written, and takes them back.

Only it writes `notifications`. Shards leave word in the outbox of records whose notifications may
have changed; the notifier computes these from the tables, so any order and any repetition comes to
the same.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from actors.id_watch import IdWatch
from actors.messages import NotifierWork
from actors.outbox_actor import OutboxActor, Work
from actors.store.notifications import NotificationWriter
from actors.store.session import Connection, SessionSettings
from engine.context import Context

log = structlog.get_logger()

# What each of the counters is called, by its name in `Written`.
COUNTERS: Final = {
    "made": ("notifications_made_total", "Notifications made"),
    "removed": ("notifications_removed_total", "Notifications removed"),
    "too_long": ("notifications_too_long_total", "Notifications whose uri is too long to be a key"),
}


@dataclass(frozen=True, slots=True)
class NotifierSettings:
    """What the notifier needs to know."""

    session: SessionSettings


class Notifier(OutboxActor[NotifierWork]):
    """Makes and removes notifications."""

    def __init__(self, context: Context, settings: NotifierSettings) -> None:
        super().__init__(context, settings, settings.session, NotifierWork)

    def on_start(self) -> None:
        """Begin with what was left, and see how many notifications can still be numbered."""
        super().on_start()
        IdWatch(self.context, partial(self.attempt, reads=True), "notifications").look()

    def prepare(self, connection: Connection) -> None:
        """Make a writer on the new connection."""
        self._writer = NotificationWriter(
            connection,
            self.fence,
            crash_point=lambda name: self.context.crash_point(f"notifier.{name}"),
            progress=self.context.progress,
        )

    def do(self, connection: Connection, works: Sequence[Work[NotifierWork]]) -> Collection[int]:  # noqa: ARG002 - the writer has it
        """Make notifications agree with the records that the works name."""
        rows = [work.row for work in works]
        written = self._writer.write([work.body for work in works], rows)
        for name in COUNTERS:
            self._count(name, getattr(written, name))
        log.debug("notified", made=written.made.total(), removed=written.removed.total())
        return rows

    def _count(self, name: str, amounts: Counter[str]) -> None:
        metric, meaning = COUNTERS[name]
        for reason, amount in amounts.items():
            self.context.metrics.counter(metric, meaning, reason=reason).add(amount)
