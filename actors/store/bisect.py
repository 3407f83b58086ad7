"""A batch that PostgreSQL refuses is halved until the record that it refuses stands alone.

That record is a drop; everything else of the batch is written.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from actors.store.batch import AppliedCommit, Change, Outcome
from actors.store.writer import BatchRefused, Writer


class Refusal(NamedTuple):
    """A record that PostgreSQL refuses, and what it said."""

    uri: str
    detail: str


def apply_bisecting(
    writer: Writer,
    changes: Sequence[Change],
    work: Sequence[tuple[str, bytes]],
    tallies: Mapping[str, int],
    wait: Callable[[float], None],
) -> tuple[Outcome, list[Refusal]]:
    """Apply a batch; returns what it did and which records were refused.

    Raises as `Writer.apply`, and BatchRefused only where what is refused is no record.
    """
    try:
        return writer.apply(changes, work, tallies, wait), []
    except BatchRefused as refused:
        if len(changes) > 1:
            middle = len(changes) // 2
            outcome, refusals = apply_bisecting(writer, changes[:middle], work, tallies, wait)
            later, more = apply_bisecting(writer, changes[middle:], (), {}, wait)
            outcome.add(later)
            return outcome, refusals + more
        only = changes[0] if changes else None
        if not isinstance(only, AppliedCommit) or not only.operations:
            raise
        reason = str(refused)
    commit, refusals = _without_refused(writer, only, reason)
    counted = {**tallies, "drop.database_refused": len(refusals)}
    return writer.apply([commit], work, counted, wait), refusals


def _without_refused(
    writer: Writer, commit: AppliedCommit, reason: str
) -> tuple[AppliedCommit, list[Refusal]]:
    """Return the commit with every refused record gone from it.

    A record is tried alone; where none is refused alone, they are refused together, and all go.
    """
    refusals: dict[str, str] = {}
    for operation in commit.operations:
        if operation.row is not None:
            refusal = writer.trial([commit._replace(operations=[operation])])
            if refusal is not None:
                refusals[operation.uri] = refusal
    if not refusals:
        refusals = {
            operation.uri: reason for operation in commit.operations if operation.row is not None
        }
    operations = [
        operation._replace(row=None, cid="") if operation.uri in refusals else operation
        for operation in commit.operations
    ]
    return (
        commit._replace(operations=operations),
        [Refusal(uri, detail) for uri, detail in refusals.items()],
    )
