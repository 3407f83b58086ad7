"""The writer: one batch, one transaction, a few set-based statements in two pipelines.

It reads the rows that the batch meets, lets `plan` decide, and writes what was decided: first the
rows that are this shard's alone, then, under locks taken in one fixed order, the counters that
several shards share and what is copied from them.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from psycopg import Connection, errors

from actors.store import beginning, outbox, parking, statements
from actors.store.apply import PlanWriter
from actors.store.arrays import register, text_array
from actors.store.batch import Change, Dropped, Outcome, Resynced, Sent
from actors.store.consequences import NOTIFIER, REGISTRY, Consequences, Work, consequences
from actors.store.drops_kept import record_drops
from actors.store.fence import Fence
from actors.store.judgement import JUDGE_SQL, WHOLE_GATES_SQL, WHOLE_REPLIES_SQL
from actors.store.limits import read_limits
from actors.store.plan import Flip, Plan, empty_plan, judged, make_plan
from actors.store.purge import finish_purge, list_purges, next_slice, note_removed
from actors.store.reading import demote, read
from actors.store.session import PASSING, REFUSALS, DatabaseAway, one_line, writing
from actors.store.tallies import ADD_SQL, add_parameters

# How a writer's connection plans: it looks rows up by key and does nothing else. A plan made while
# a table was empty must not be kept when it has grown, so scanning whole tables is no option ever.
SESSION: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
RECEIVERS: Final = ("user_gate", REGISTRY, NOTIFIER)
MAX_RETRIES: Final = 20
MAX_UNIQUE_RETRIES: Final = 2

T = TypeVar("T")
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class BatchRefused(Exception):
    """PostgreSQL refuses some value of the batch; nothing of it was written. Bisect it."""


class Writer:
    """Applies batches on one connection, for one actor.

    `receivers` are the actors that outbox work is written for: those that run. `kept_drops` is how
    many drops the index remembers. `personal`: events about accounts come of everybody, and count
    only where something here speaks of them.
    `crash_point` is called with a name at each place where a crash must be survived. The connection
    must be in autocommit mode and belong to nobody else.
    """

    def __init__(
        self,
        connection: Connection[Any],
        fence: Fence,
        *,
        search: bool = False,
        receivers: Collection[str] = RECEIVERS,
        parked_bytes: int = 64 * 1024 * 1024,
        personal: bool = False,
        kept_drops: int = 0,
        crash_point: Callable[[str], None] = lambda _name: None,
        random_source: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._receivers = receivers
        self._parked_bytes = parked_bytes
        self._personal = personal
        self._kept_drops = kept_drops
        self._crash_point = crash_point
        self._random = random_source or random.Random()  # noqa: S311 - spreads retries, no secret
        self._begun = False
        self._plan_writer = PlanWriter(connection, search=search)
        register(connection)
        self._limits = read_limits(connection)
        # The same few dozen statements run all day: prepare each the first time it is sent.
        connection.prepare_threshold = 0
        connection.prepared_max = 500
        for name, value in SESSION.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])

    def apply(
        self,
        changes: Sequence[Change],
        work: Sequence[tuple[str, bytes]] = (),
        tallies: Mapping[str, int] = _NOTHING,
        wait: Callable[[float], None] = lambda _seconds: None,
        drops: Sequence[Dropped] = (),
    ) -> Outcome:
        """Write a batch and its outbox `work` (receiver, body); returns what it did.

        `tallies` are counted with it, and `drops` remembered with its own. Deadlocks and
        serialization failures are retried, with `wait` in between. Raises Fenced when this actor
        has been replaced, BatchRefused for values that PostgreSQL refuses, TooSlow for a batch that
        takes too long, DatabaseUnusable where no batch can be written, and DatabaseAway when the
        server is away (the batch may or may not be durable then: apply it again on a new
        connection, the rev guard sorts it out).
        """
        try:
            outcome, retries = self._retrying(
                lambda: self._apply_once(changes, work, tallies, drops), wait
            )
        except REFUSALS as error:
            raise BatchRefused(str(error).partition("\n")[0]) from error
        outcome.retries = retries
        return outcome

    def transact(
        self,
        changes: Callable[[Connection[Any]], Sequence[Change]],
        wait: Callable[[float], None] = lambda _seconds: None,
        *,
        work: Sequence[tuple[str, bytes]] = (),
        after: Callable[[Connection[Any]], None] = lambda _connection: None,
        draining: str | None = None,
    ) -> Outcome:
        """Write changes that are found out within the transaction, outbox `work`, and what `after`
        writes.

        Events of a parked DID wait as always, but for those of `draining`. Retries and raises as
        `apply`; both functions may be called again.
        """

        def once() -> Outcome:
            with self._connection.transaction():
                # Before any row is locked.
                self._fence.check(self._connection)
                outcome = self._write(changes(self._connection), work, {}, (), draining)
                after(self._connection)
                self._crash_point("before_commit")
            self._crash_point("after_commit")
            return outcome

        try:
            outcome, retries = self._retrying(once, wait)
        except REFUSALS as error:
            raise BatchRefused(str(error).partition("\n")[0]) from error
        outcome.retries = retries
        return outcome

    def trial(
        self,
        changes: Sequence[Change],
        wait: Callable[[float], None] = lambda _seconds: None,
        draining: str | None = None,
    ) -> str | None:
        """Try a batch and roll it back; returns why PostgreSQL refuses it, or None if it does not.

        Retries and raises as `apply` does; `draining` as for `transact`.
        """
        try:
            self._retrying(lambda: self._try_once(changes, draining), wait)
        except REFUSALS as error:
            return str(error).partition("\n")[0]
        return None

    def _retrying(self, once: Callable[[], T], wait: Callable[[float], None]) -> tuple[T, int]:
        """Do it until no lock is in the way; returns what it came to, and after how many retries.

        Raises DatabaseAway when there is no end to them, UniqueViolation when a row stays in the
        way.
        """
        retries = 0
        while True:
            try:
                with writing():
                    return once(), retries
            except errors.UniqueViolation:
                # A row of another program that came at the same moment is met once, one that was
                # there before always: then the record is refused.
                retries += 1
                if retries > MAX_UNIQUE_RETRIES:
                    raise
            except PASSING as error:
                retries += 1
                if retries > MAX_RETRIES:
                    # Whoever holds the lock is to blame, not what was to be written.
                    raise DatabaseAway(one_line(error)) from error
            wait(self._random.uniform(0, 0.01 * retries))

    def settle(
        self,
        claims: Sequence[tuple[str, str]],
        judge: Sequence[str],
        wait: Callable[[float], None] = lambda _seconds: None,
    ) -> Outcome:
        """Claim entries of the registry (uri, awaited) and judge posts of this shard's authors.

        An entry that is gone by now was cancelled or claimed before. Retries and raises as `apply`.
        """
        outcome, retries = self._retrying(lambda: self._settle_once(claims, judge), wait)
        outcome.retries = retries
        return outcome

    def _settle_once(self, claims: Sequence[tuple[str, str]], judge: Sequence[str]) -> Outcome:
        connection = self._connection
        plan = empty_plan()
        found = Consequences()
        with self._connection.transaction():
            self._fence.check(connection)
            claimed = flips = None
            with connection.pipeline():
                if claims:
                    uris, awaited = zip(*claims, strict=True)
                    claimed = connection.execute(
                        statements.CLAIM_SQL, [text_array(uris), text_array(awaited)]
                    )
                if judge:
                    flips = connection.execute(JUDGE_SQL, [text_array(sorted(set(judge)))])
            if claimed is not None:
                for uri, kind in claimed.fetchall():
                    plan.outcome.pending["flushed", kind] += 1
                    found.claimed(uri, kind)
            if flips is not None:
                self._take_flips(plan, found, [Flip(*row) for row in flips.fetchall()], again=True)
            self._finish(plan, self._follows(found), {})
            self._crash_point("before_settled")
        self._crash_point("after_settled")
        return plan.outcome

    def backlog(
        self, wait: Callable[[float], None] = lambda _seconds: None
    ) -> tuple[list[str], list[str]]:
        """Return the subjects of which something is still to be removed, and the DIDs whose parked
        events are to be drained. Raises as `apply`.
        """
        connection = self._connection
        return self._retrying(
            lambda: (list_purges(connection), parking.list_draining(connection)), wait
        )[0]

    def purge_slice(
        self, subject: str, wait: Callable[[float], None] = lambda _seconds: None
    ) -> Outcome | None:
        """Remove the next slice of what a subject of `engine_purges` wrote; None when it is done.

        Retries and raises as `apply`.
        """
        outcome, retries = self._retrying(lambda: self._purge_once(subject), wait)
        if outcome is not None:
            outcome.retries = retries
        return outcome

    def _purge_once(self, subject: str) -> Outcome | None:
        connection = self._connection
        with connection.transaction():
            # Before any row is locked: whoever decides on purges holds the fence, then their rows.
            self._fence.check(connection)
            part = next_slice(connection, subject)
            if part is None:
                return None
            known, met = read(connection, self._fence, [part.removal])
            plan = make_plan([part.removal], known, met)
            found = consequences(plan, set())
            self._write_rows(plan, found)
            removed = len(part.removal.operations)
            if part.last:
                finish_purge(connection, subject, part.reason)
                found.purged = [subject] if subject.startswith("did:") else []
                plan.outcome.purged = {subject}
            else:
                note_removed(connection, subject, removed)
            self._finish(plan, self._follows(found), {"purged": removed})
            self._crash_point("before_purged")
        self._crash_point("after_purged")
        return plan.outcome

    def _try_once(self, changes: Sequence[Change], draining: str | None) -> None:
        with self._connection.transaction(force_rollback=True):
            self._write(changes, (), {}, (), draining)

    def _apply_once(
        self,
        changes: Sequence[Change],
        work: Sequence[tuple[str, bytes]],
        tallies: Mapping[str, int],
        drops: Sequence[Dropped],
    ) -> Outcome:
        with self._connection.transaction():
            outcome = self._write(changes, work, tallies, drops)
            self._crash_point("before_commit")
        self._crash_point("after_commit")
        return outcome

    def _write(
        self,
        changes: Sequence[Change],
        work: Sequence[tuple[str, bytes]],
        tallies: Mapping[str, int],
        drops: Sequence[Dropped],
        draining: str | None = None,
    ) -> Outcome:
        changes = self._limits.fit(changes)
        known, met = read(self._connection, self._fence, changes, personal=self._personal)
        self._begun = beginning.look(self._connection, changes, known, begun=self._begun)
        if draining is not None:
            known.parked.discard(draining)
            known.draining.add(draining)
        plan = make_plan(changes, known, met)
        demote(self._connection, plan)
        found = consequences(plan, known.subscribed)
        self._crash_point("before_write")
        self._write_rows(plan, found)
        if resynced := [each.did for each in changes if isinstance(each, Resynced)]:
            self._judge_again(found, resynced)
        if plan.folded.parked:
            over = parking.park(self._connection, plan.folded.parked, self._parked_bytes)
            plan.outcome.given_up = len(over)
        if plan.folded.spoiled:
            parking.spoil(self._connection, sorted(plan.folded.spoiled))
        self._finish(plan, [*work, *self._follows(found)], tallies, drops)
        plan.outcome.purges = plan.folded.purges
        return plan.outcome

    def _write_rows(self, plan: Plan, found: Consequences) -> None:
        """Write what belongs to the batch's own authors, then judge what it brought."""
        connection = self._connection
        cancelled = flips = None
        entries = []
        with connection.pipeline():
            self._plan_writer.write_rows(plan)
            if found.cancelled:
                cancelled = connection.execute(statements.CANCEL_SQL, [text_array(found.cancelled)])
            for table, of_table in found.entries_by_table().items():
                columns = [text_array(column) for column in zip(*of_table, strict=True)]
                entries.append(connection.execute(statements.wait_sql(table), columns))
            if found.judge:
                flips = connection.execute(JUDGE_SQL, [text_array(found.judge)])
        pending = plan.outcome.pending
        if cancelled is not None:
            pending.update(("cancelled", kind) for (kind,) in cancelled.fetchall())
        made = [row for result in entries for row in result.fetchall()]
        pending.update(("queued", kind) for _uri, _awaited, kind in made)
        found.missing([(uri, awaited) for uri, awaited, _kind in made])
        if flips is not None:
            self._take_flips(plan, found, [Flip(*row) for row in flips.fetchall()], again=False)

    def _judge_again(self, found: Consequences, dids: Sequence[str]) -> None:
        """Have the registry look at what rests on follows and lists of accounts that came whole."""
        for sql, uris in ((WHOLE_GATES_SQL, found.gates), (WHOLE_REPLIES_SQL, found.judge)):
            uris.extend(uri for (uri,) in self._connection.execute(sql, [text_array(dids)]))

    def _take_flips(
        self, plan: Plan, found: Consequences, flips: Sequence[Flip], *, again: bool
    ) -> None:
        judged(plan, flips)
        found.judged(flips, again=again)
        for flip in flips:
            changed = {
                "invalid": flip.invalid != flip.was_invalid,
                "gated": flip.gated != flip.was_gated,
                "embeds": flip.embeds != flip.was_embeds,
            }
            plan.outcome.flags.update(flag for flag, differs in changed.items() if differs)

    def _follows(self, found: Consequences) -> Work:
        """The work for those who run."""
        return [piece for piece in found.work() if piece[0] in self._receivers]

    def _finish(
        self,
        plan: Plan,
        work: Work,
        tallies: Mapping[str, int],
        drops: Sequence[Dropped] = (),
    ) -> None:
        """Write the counters, the tallies and the outbox: the end of a transaction."""
        connection = self._connection
        ids = None
        with connection.pipeline():
            self._plan_writer.write_counts(plan)
            record_drops(connection, [*drops, *plan.outcome.drops], self._kept_drops)
            connection.execute(
                ADD_SQL,
                add_parameters(
                    self._fence.epoch, self._fence.actor, {**plan.outcome.tallies(), **tallies}
                ),
            )
            if work:
                ids = connection.execute(outbox.INSERT_SQL, outbox.insert_parameters(work))
        if ids is not None:
            rows = [row for (row,) in ids.fetchall()]
            plan.outcome.sent = [
                Sent(receiver, row, body) for (receiver, body), row in zip(work, rows, strict=True)
            ]
