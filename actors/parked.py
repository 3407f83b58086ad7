"""What comes of events that waited: decoded again, and their signatures judged by what is known of
their account by now.
"""

from collections.abc import Callable, Sequence
from typing import Final

from actors.decoder import Batch
from actors.store import parking
from actors.store.batch import AppliedCommit, Change, Dropped, Refused
from actors.store.parking import Case, Parked
from actors.store.resync import Drained
from actors.store.session import Connection
from actors.verification import Signed, judged

NO_CASE: Final = Case(None, False, 0, None)


class ParkedEvents:
    """Decodes them.

    Args:
        new_batch: makes an empty batch with a shard's settings.
        verifies: whether signatures are judged.
        crash_point: a point at which a crash must be survived.
    """

    def __init__(
        self, new_batch: Callable[[], Batch], *, verifies: bool, crash_point: Callable[[], None]
    ) -> None:
        self._new_batch = new_batch
        self._verifies = verifies
        self._crash_point = crash_point

    def decode(self, connection: Connection, did: str, rows: Sequence[Parked]) -> Drained:
        """Make changes of events of a DID, up to the first whose key must be asked for again."""
        self._crash_point()
        case = parking.case_of(connection, did) if self._verifies else NO_CASE
        changes: list[Change] = []
        for taken, row in enumerate(rows):
            batch = self._new_batch()
            batch.add(row.frame, row.host)
            drops = [drop._replace(subject=drop.subject or did) for drop in batch.drops]
            for change in batch.changes:
                verdict: str | Dropped | None = None
                if self._verifies and isinstance(change, Signed):
                    verdict = judged(change, case, looked=row.row <= case.looked)
                if isinstance(verdict, Dropped):
                    drops.append(verdict)
                elif verdict is not None:
                    return Drained(changes, taken, verdict)
                else:
                    changes.append(_without_drops(change) if row.withheld else change)
            if drops:
                changes.append(Refused(did, drops))
        return Drained(changes, len(rows))


def _without_drops(change: Change) -> Change:
    """Without the drops of records that were counted when the event came."""
    return change._replace(drops=()) if isinstance(change, AppliedCommit) else change
