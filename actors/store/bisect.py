"""A batch that PostgreSQL refuses is halved until the record that it refuses stands alone.

That record is a drop; everything else of the batch is written.
"""

from collections.abc import Callable, Mapping, Sequence

from actors.drops import DropReason
from actors.store.batch import AppliedCommit, Change, Dropped, Outcome
from actors.store.folding import PurgeFirst
from actors.store.purge import purge_to_end
from actors.store.session import DatabaseAway, TooSlow
from actors.store.writer import BatchRefused, Writer


def apply_bisecting(
    writer: Writer,
    changes: Sequence[Change],
    work: Sequence[tuple[str, bytes]],
    tallies: Mapping[str, int],
    wait: Callable[[float], None],
    drops: Sequence[Dropped] = (),
) -> Outcome:
    """Apply a batch; returns what it did, refused records among its drops.

    A batch that PostgreSQL finds too slow is halved likewise. Raises as `Writer.apply`, and
    BatchRefused only where what is refused is no record; what is too slow alone is DatabaseAway.
    """
    # Halving may take long, and each step of it is a sign of life.
    wait(0)
    try:
        return writer.apply(changes, work, tallies, wait, drops)
    except PurgeFirst as first:
        return _after_purge(writer, changes, first, work, tallies, wait, drops)
    except (BatchRefused, TooSlow) as refused:
        if len(changes) > 1:
            middle = len(changes) // 2
            outcome = apply_bisecting(writer, changes[:middle], work, tallies, wait, drops)
            outcome.add(apply_bisecting(writer, changes[middle:], (), {}, wait))
            return outcome
        if isinstance(refused, TooSlow):
            raise DatabaseAway(f"one commit alone takes too long: {refused}") from refused
        only = changes[0] if changes else None
        if not isinstance(only, AppliedCommit) or not only.operations:
            raise
        reason = str(refused)
    return writer.apply([without_refused(writer, only, reason, wait)], work, tallies, wait, drops)


def _after_purge(
    writer: Writer,
    changes: Sequence[Change],
    first: PurgeFirst,
    work: Sequence[tuple[str, bytes]],
    tallies: Mapping[str, int],
    wait: Callable[[float], None],
    drops: Sequence[Dropped],
) -> Outcome:
    """Apply what comes before the change that has to wait, finish the purge, apply the rest."""
    outcome = Outcome()
    if first.position:
        before = changes[: first.position]
        outcome.add(apply_bisecting(writer, before, work, tallies, wait, drops))
        work, tallies, drops = (), {}, ()
    outcome.add(purge_to_end(lambda: writer.purge_slice(first.did, wait), wait))
    rest = changes[first.position :]
    outcome.add(apply_bisecting(writer, rest, work, tallies, wait, drops))
    return outcome


def without_refused(
    writer: Writer,
    commit: AppliedCommit,
    reason: str,
    wait: Callable[[float], None],
    draining: str | None = None,
) -> AppliedCommit:
    """Return the commit with every refused record gone from it, and a drop for each.

    A record is tried alone; where none is refused alone, they are refused together, and all go.
    """
    refusals: dict[str, str] = {}
    for operation in commit.operations:
        if operation.row is not None:
            wait(0)
            alone = commit._replace(operations=[operation])
            refusal = writer.trial([alone], wait, draining)
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
    drops = [Dropped(DropReason.DATABASE_REFUSED, uri, why) for uri, why in refusals.items()]
    return commit._replace(operations=operations, drops=[*commit.drops, *drops])
