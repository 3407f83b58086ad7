"""The writer: one batch, one transaction, a few set-based statements in two pipelines.

It reads the rows that the batch meets, lets `plan` decide, and writes what was decided: first the
rows that are this shard's alone, then, under locks taken in one fixed order, the counters that
several shards share and what is copied from them.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from psycopg import Connection, errors

from actors.records import RECORDS, UNKNOWN
from actors.records.record import RecordType
from actors.store import outbox, statements
from actors.store.apply import PlanWriter
from actors.store.arrays import register, text_array
from actors.store.aside import from_database, unpack
from actors.store.batch import AppliedCommit, Change, Outcome
from actors.store.fence import CHECK_SQL, LOCK_SQL, Fence
from actors.store.plan import Aside, Met, Plan, Repo, Thing, make_plan, thing_of, thing_text
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
MAX_RETRIES: Final = 20
MAX_UNIQUE_RETRIES: Final = 2

T = TypeVar("T")
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})

_TYPES: Final[dict[str, RecordType]] = {
    type_.table: type_ for type_ in (*RECORDS.values(), UNKNOWN)
}
# Tables whose rows mean something elsewhere, so that what they were must be known.
_MEETS: Final = tuple(
    type_
    for type_ in _TYPES.values()
    if type_.thing or type_.basis_sql or type_.table in ("feed_generators", "labeler_services")
)


class BatchRefused(Exception):
    """PostgreSQL refuses some value of the batch; nothing of it was written. Bisect it."""


class Writer:
    """Applies batches on one connection, for one actor.

    `crash_point` is called with a name at each place where a crash must be survived. The connection
    must be in autocommit mode and belong to nobody else.
    """

    def __init__(
        self,
        connection: Connection[Any],
        fence: Fence,
        *,
        search: bool = False,
        crash_point: Callable[[str], None] = lambda _name: None,
        random_source: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._crash_point = crash_point
        self._random = random_source or random.Random()  # noqa: S311 - spreads retries, no secret
        self._plan_writer = PlanWriter(connection, search=search)
        register(connection)
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
    ) -> Outcome:
        """Write a batch and its outbox `work` (receiver, body); returns what it did.

        `tallies` are counted with it. Deadlocks and serialization failures are retried, with `wait`
        in between. Raises Fenced when this actor has been replaced, BatchRefused for values that
        PostgreSQL refuses, TooSlow for a batch that takes too long, DatabaseUnusable where no
        batch can be written, and DatabaseAway when the server is away (the batch may or may not be
        durable then: apply it again on a new connection, the rev guard sorts it out).
        """
        try:
            outcome, retries = self._retrying(
                lambda: self._apply_once(changes, work, tallies), wait
            )
        except REFUSALS as error:
            raise BatchRefused(str(error).partition("\n")[0]) from error
        outcome.retries = retries
        return outcome

    def trial(
        self,
        changes: Sequence[Change],
        wait: Callable[[float], None] = lambda _seconds: None,
    ) -> str | None:
        """Try a batch and roll it back; returns why PostgreSQL refuses it, or None if it does not.

        Retries and raises as `apply` does.
        """
        try:
            self._retrying(lambda: self._try_once(changes), wait)
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

    def _try_once(self, changes: Sequence[Change]) -> None:
        with self._connection.transaction(force_rollback=True):
            self._write(changes, (), {})

    def _apply_once(
        self,
        changes: Sequence[Change],
        work: Sequence[tuple[str, bytes]],
        tallies: Mapping[str, int],
    ) -> Outcome:
        with self._connection.transaction():
            outcome = self._write(changes, work, tallies)
            self._crash_point("before_commit")
        self._crash_point("after_commit")
        return outcome

    def _write(
        self,
        changes: Sequence[Change],
        work: Sequence[tuple[str, bytes]],
        tallies: Mapping[str, int],
    ) -> Outcome:
        known, met = self._read(changes)
        plan = make_plan(changes, known, met)
        self._demote(plan)
        self._crash_point("before_write")
        connection = self._connection
        ids = None
        with connection.pipeline():
            self._plan_writer.write(plan)
            connection.execute(
                ADD_SQL,
                add_parameters(
                    self._fence.epoch, self._fence.actor, {**plan.outcome.tallies(), **tallies}
                ),
            )
            if work:
                ids = connection.execute(outbox.INSERT_SQL, outbox.insert_parameters(list(work)))
        if ids is not None:
            plan.outcome.outbox = [row for (row,) in ids.fetchall()]
        return plan.outcome

    def _read(self, changes: Sequence[Change]) -> tuple[dict[str, Repo], dict[str, Met]]:
        """Check the fence and read every row that the batch meets."""
        connection = self._connection
        keys, things = _wanted(changes)
        dids = list({change.did for change in changes})
        held_sql: dict[str, tuple[Any, Any]] = {}
        with connection.pipeline():
            connection.execute(LOCK_SQL)
            fence = connection.execute(CHECK_SQL, [self._fence.actor])
            guards = connection.execute(statements.GUARD_SQL, [text_array(dids)])
            for type_ in _MEETS:
                table = type_.table
                if table not in keys:
                    continue
                old = connection.execute(statements.old_rows_sql(type_), [text_array(keys[table])])
                holders = None
                if things.get(table):
                    parts = zip(*things[table], strict=True)
                    holders = connection.execute(
                        statements.holders_sql(type_), [text_array(part) for part in parts]
                    )
                held_sql[table] = (old, holders)
        self._fence.demand(fence.fetchone())
        known = {
            did: Repo(rev, None if data is None else bytes(data), out_of_step)
            for did, rev, data, out_of_step in guards.fetchall()
        }
        met: dict[str, Met] = {}
        for table, (old, holders) in held_sql.items():
            type_ = _TYPES[table]
            found = met[table] = Met()
            found.old = {row[0]: row[1:] for row in old.fetchall()}
            if holders is not None:
                for row in holders.fetchall():
                    found.holders[thing_of(type_, row[1:])] = row[0]
                    found.holder_basis[row[0]] = row[1:]
        self._read_aside(keys, things, met)
        return known, met

    def _read_aside(
        self, keys: dict[str, list[str]], things: dict[str, set[Thing]], met: dict[str, Met]
    ) -> None:
        """Read the duplicates of the batch's keys and things, and of things it may leave."""
        uris = [uri for table in things for uri in keys[table]]
        if not uris:
            return
        pairs: list[tuple[str, str]] = []
        for table, found in met.items():
            type_ = _TYPES[table]
            if type_.thing:
                all_things = things[table] | {
                    thing_of(type_, basis) for basis in found.old.values()
                }
                pairs.extend((table, thing_text(thing)) for thing in all_things)
        rows = self._connection.execute(
            statements.ASIDE_SQL,
            [
                text_array(uris),
                text_array([table for table, _ in pairs]),
                text_array([thing for _, thing in pairs]),
            ],
        ).fetchall()
        for uri, table, _thing, cid, body in {row[0]: row for row in rows}.values():
            type_ = _TYPES[table]
            values = unpack(type_, body)
            assert type_.rebuild is not None
            row = type_.rebuild(values, cid or "")
            met[table].aside.append(Aside(uri, thing_of(type_, row.basis), cid or "", row))

    def _demote(self, plan: Plan) -> None:
        """Read the rows that a lower key displaces, to keep them aside."""
        for table in plan.tables.values():
            if not table.demote:
                continue
            things = dict(table.demote)
            type_ = table.type
            assert type_.rebuild is not None
            rows = self._connection.execute(
                statements.whole_rows_sql(type_), [text_array(list(things))]
            ).fetchall()
            for cid, *columns in rows:
                values = from_database(type_, columns)
                row = type_.rebuild(values, cid or "")
                uri = str(values[0])
                table.aside_put.append((uri, things[uri], cid or "", row))


def _wanted(
    changes: Sequence[Change],
) -> tuple[dict[str, list[str]], dict[str, set[Thing]]]:
    """Keys and things of a batch, by table."""
    keys: dict[str, dict[str, None]] = {}
    things: dict[str, set[Thing]] = {}
    for change in changes:
        if not isinstance(change, AppliedCommit):
            continue
        for operation in change.operations:
            type_ = operation.type
            keys.setdefault(type_.table, {})[operation.key] = None
            if type_.thing:
                of_table = things.setdefault(type_.table, set())
                if operation.row is not None:
                    of_table.add(thing_of(type_, operation.row.basis))
    return {table: list(of_table) for table, of_table in keys.items()}, things
