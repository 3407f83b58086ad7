"""Reading what a batch meets: the guards of its DIDs, the rows under its keys, the holders of its
things, and what was kept aside.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from actors.records import RECORDS, UNKNOWN
from actors.records.record import RecordType
from actors.store import statements
from actors.store.arrays import text_array
from actors.store.aside import from_database, unpack
from actors.store.batch import (
    AccountState,
    AppliedCommit,
    Change,
    Fetched,
    IdentityState,
    Removal,
)
from actors.store.fence import CHECK_SQL, LOCK_SQL, Fence
from actors.store.folding import Account, Known, Moment, Repo
from actors.store.plan import Aside, Met, Plan, Thing, thing_of, thing_text

__all__ = ["demote", "read", "revs_of"]

_TYPES: Final[dict[str, RecordType]] = {
    type_.table: type_ for type_ in (*RECORDS.values(), UNKNOWN)
}
# Tables whose rows mean something elsewhere, so that what they were must be known.
_MEETS: Final = tuple(
    type_
    for type_ in _TYPES.values()
    if type_.thing or type_.basis_sql or type_.table in ("feed_generators", "labeler_services")
)


def read(
    connection: Connection[Any],
    fence: Fence,
    changes: Sequence[Change],
    *,
    personal: bool = False,
) -> tuple[Known, dict[str, Met]]:
    """Check the fence and read every row that the batch meets.

    In a `personal` index also who of those that events are about is a stranger.
    """
    keys, things = _wanted(changes)
    dids = list({change.did for change in changes})
    uris = [
        operation.uri
        for change in changes
        if isinstance(change, AppliedCommit | Fetched)
        for operation in change.operations
        if operation.row is not None
    ]
    about = {each.did for each in changes if isinstance(each, AccountState | IdentityState)}
    strangers = None
    held_sql: dict[str, tuple[Any, Any]] = {}
    with connection.pipeline():
        connection.execute(LOCK_SQL)
        right = connection.execute(CHECK_SQL, [fence.actor])
        guards = connection.execute(statements.GUARD_SQL, [text_array(dids)])
        taken_down = connection.execute(statements.TAKEN_DOWN_SQL, [text_array(uris)])
        if personal and about:
            strangers = connection.execute(statements.STRANGERS_SQL, [text_array(sorted(about))])
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
    fence.demand(right.fetchone())
    known = _known(guards.fetchall())
    known.taken_down.update(uri for (uri,) in taken_down.fetchall())
    if strangers is not None:
        known.strangers.update(did for (did,) in strangers.fetchall())
    met: dict[str, Met] = {}
    for table, (old, holders) in held_sql.items():
        type_ = _TYPES[table]
        found = met[table] = Met()
        found.old = {row[0]: row[1:] for row in old.fetchall()}
        if holders is not None:
            for row in holders.fetchall():
                found.holders[thing_of(type_, row[1:])] = row[0]
                found.holder_basis[row[0]] = row[1:]
    _read_aside(connection, keys, things, met)
    return known, met


def revs_of(connection: Connection[Any], dids: Sequence[str]) -> dict[str, str]:
    """The last applied revs of these repositories; only those known."""
    rows = connection.execute(
        "SELECT did, rev FROM engine_repos WHERE did = ANY(%b::text[])", [text_array(dids)]
    ).fetchall()
    return dict(rows)


def _read_aside(
    connection: Connection[Any],
    keys: dict[str, list[str]],
    things: dict[str, set[Thing]],
    met: dict[str, Met],
) -> None:
    """Read the duplicates of the batch's keys and things, and of things it may leave."""
    uris = [uri for table in things for uri in keys[table]]
    if not uris:
        return
    pairs: list[tuple[str, str]] = []
    for table, found in met.items():
        type_ = _TYPES[table]
        if type_.thing:
            all_things = things[table] | {thing_of(type_, basis) for basis in found.old.values()}
            pairs.extend((table, thing_text(thing)) for thing in all_things)
    rows = connection.execute(
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


def demote(connection: Connection[Any], plan: Plan) -> None:
    """Read the rows that a lower key displaces, to keep them aside."""
    for table in plan.tables.values():
        if not table.demote:
            continue
        things = dict(table.demote)
        type_ = table.type
        assert type_.rebuild is not None
        rows = connection.execute(
            statements.whole_rows_sql(type_), [text_array(list(things))]
        ).fetchall()
        for cid, *columns in rows:
            values = from_database(type_, columns)
            row = type_.rebuild(values, cid or "")
            uri = str(values[0])
            table.aside_put.append((uri, things[uri], cid or "", row))


def _known(rows: Sequence[tuple[Any, ...]]) -> Known:
    """Take in what GUARD_SQL returned."""
    known = Known()
    for row in rows:
        did, rev, data, out_of_step, withheld, active, status, *rest = row
        account, identity, (opted_out, taken_down, purging, subscribed, parked) = (
            rest[:3],
            rest[3:6],
            rest[6:],
        )
        if rev is not None:
            known.repos[did] = Repo(
                rev, None if data is None else bytes(data), out_of_step, withheld
            )
        if active is not None:
            known.accounts[did] = Account(active, status, _moment(account), _moment(identity))
        for yes, dids in (
            (opted_out, known.opted_out),
            (taken_down, known.taken_down),
            (purging, known.purging),
            (subscribed, known.subscribed),
            (parked, known.parked),
        ):
            if yes:
                dids.add(did)
    return known


def _moment(columns: Sequence[Any]) -> Moment | None:
    return None if columns[1] is None else Moment(*columns)


def _wanted(
    changes: Sequence[Change],
) -> tuple[dict[str, list[str]], dict[str, set[Thing]]]:
    """Keys and things of a batch, by table."""
    keys: dict[str, dict[str, None]] = {}
    things: dict[str, set[Thing]] = {}
    for change in changes:
        if not isinstance(change, AppliedCommit | Fetched | Removal):
            continue
        for operation in change.operations:
            type_ = operation.type
            keys.setdefault(type_.table, {})[operation.key] = None
            if type_.thing:
                of_table = things.setdefault(type_.table, set())
                if operation.row is not None:
                    of_table.add(thing_of(type_, operation.row.basis))
    return {table: list(of_table) for table, of_table in keys.items()}, things
