"""From a batch and the rows it meets to what is to be written: pure, no SQL.

The rules: what passes the guards comes folded to one final state per key; two records for one thing
are settled (the lowest key is indexed, the others are kept aside); counts change by what really
changes, the meaning of rows that go taken back and that of rows that come added.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.records.fields import is_post
from actors.records.record import (
    AGGREGATES,
    POST_QUOTES,
    POST_REPLIES,
    AggregateTable,
    Basis,
    Counter,
    Derived,
    Effects,
    RecordType,
    Row,
)
from actors.store.batch import Change, Operation, Outcome
from actors.store.folding import Folded, Known, Step, fold

Thing = tuple[str, ...]


class Flip(NamedTuple):
    """A post whose flags were judged anew, and before and after: invalid reply, forbidden by its
    thread's gate, by the gate of what it quotes.
    """

    uri: str
    author: str
    parent: str | None
    quoted: str | None
    was_invalid: bool
    was_gated: bool
    was_embeds: bool
    invalid: bool
    gated: bool
    embeds: bool


class Aside(NamedTuple):
    """A record that is kept in `engine_duplicates`: another one holds its thing."""

    uri: str
    thing: Thing
    cid: str
    row: Row


@dataclass(slots=True)
class Met:
    """The rows of one table that a batch meets.

    `old` are rows under the batch's keys, `holders` the rows that hold its things (thing to key),
    `holder_basis` their basis, `aside` the duplicates of either.
    """

    old: dict[str, Basis] = field(default_factory=dict)
    holders: dict[Thing, str] = field(default_factory=dict)
    holder_basis: dict[str, Basis] = field(default_factory=dict)
    aside: list[Aside] = field(default_factory=list)


@dataclass(slots=True)
class TablePlan:
    """What to do in one record table: rows to delete by key, rows to put."""

    type: RecordType
    delete: list[str] = field(default_factory=list)
    put: list[Row] = field(default_factory=list)
    aside_delete: list[str] = field(default_factory=list)
    aside_put: list[tuple[str, Thing, str, Row]] = field(default_factory=list)
    # Indexed rows that a lower key displaces: to be read whole and kept aside.
    demote: list[tuple[str, Thing]] = field(default_factory=list)


Viewers = dict[tuple[str, str], dict[str, str | None]]


@dataclass(slots=True)
class Plan:
    """All that a batch writes."""

    folded: Folded
    tables: dict[str, TablePlan] = field(default_factory=dict)
    counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    # Aggregate rows that may have become empty, and those that must be there.
    emptied: dict[str, set[str]] = field(default_factory=dict)
    required: dict[str, set[str]] = field(default_factory=dict)
    # Rows that were there and go or are replaced, by table and key.
    removed: dict[str, dict[str, Basis]] = field(default_factory=dict)
    viewers: Viewers = field(default_factory=dict)
    derived_delete: dict[str, set[str]] = field(default_factory=dict)
    derived_put: dict[str, list[Derived]] = field(default_factory=dict)
    # Verifications that were taken back: issuer, subject, when (microseconds since 1970).
    unverified: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """What the batch did."""
        return self.folded.outcome

    def touched(self, table: AggregateTable) -> list[str]:
        """Keys of the counter rows that change, must be there or must be locked, sorted.

        Where one row takes another's place the count stays, but what is derived from the row does
        not: it is written under the counter's lock all the same.
        """
        locked = self.required[table.name] | self.emptied[table.name]
        return sorted(
            key for key, deltas in self.counts[table.name].items() if key in locked or any(deltas)
        )


def thing_of(type_: RecordType, basis: Basis) -> Thing:
    """Return the thing that a row of this basis is about (empty for a type without things)."""
    return basis[: len(type_.thing)]


def thing_text(thing: Thing) -> str:
    """Return the thing as `engine_duplicates` spells it: its parts, joined by a space."""
    return " ".join(thing)


def empty_plan(folded: Folded | None = None) -> Plan:
    """Return a plan that writes nothing yet."""
    plan = Plan(folded or Folded())
    for aggregate in AGGREGATES:
        plan.counts[aggregate.name] = {}
        plan.emptied[aggregate.name] = set()
        plan.required[aggregate.name] = set()
    return plan


def make_plan(changes: Sequence[Change], known: Known, met: Mapping[str, Met]) -> Plan:
    """Decide what a batch writes, from what is known and the rows that it meets (by table).

    Raises PurgeFirst.
    """
    folded = fold(changes, known)
    plan = empty_plan(folded)
    for table, operations in folded.final.items():
        type_ = next(iter(operations.values())).type
        table_plan = plan.tables[table] = TablePlan(type_)
        steps = folded.steps.get(table, {})
        if type_.thing:
            _settle(plan, table_plan, operations, met[table])
            _tell_unverified(plan, steps, met[table])
        else:
            old = met[table].old if table in met else {}
            _replace(plan, table_plan, _carried(type_, operations, steps, old), old)
    return plan


def _carried(
    type_: RecordType,
    operations: Mapping[str, Operation],
    steps: Mapping[str, Sequence[Step]],
    old: Mapping[str, Basis],
) -> Mapping[str, Operation]:
    """Let each version take over from the one before, where the type does so."""
    if type_.carry is None:
        return operations
    carried = dict(operations)
    for key, of_key in steps.items():
        basis = old.get(key)
        for step in of_key:
            operation = step.operation
            if operation.row is not None:
                operation = operation._replace(row=type_.carry(basis, operation.row))
            basis = None if operation.row is None else operation.row.basis
            carried[key] = operation
    return carried


def _tell_unverified(plan: Plan, steps: Mapping[str, Sequence[Step]], met: Met) -> None:
    """Note verifications that their issuer took back, each time it happened.

    Who may not be stored took nothing back by writing it anew.
    """
    aside = {kept.uri: kept.row.basis for kept in met.aside}
    for key, of_key in steps.items():
        basis = met.old.get(key) or aside.get(key)
        for step in of_key:
            row = step.operation.row
            if row is None and basis is not None and not step.withheld:
                issuer, subject = basis
                plan.unverified[key] = (issuer, subject, step.time)
            basis = None if row is None else row.basis


def _replace(
    plan: Plan, table: TablePlan, operations: Mapping[str, Operation], old: Mapping[str, Basis]
) -> None:
    """Plan a table in which every key stands for itself."""
    type_ = table.type
    for key, operation in operations.items():
        if key in old:
            plan.removed.setdefault(type_.table, {})[key] = old[key]
            _take_back(plan, type_.effects(key, old[key]))
        if operation.row is None:
            if type_.cleared is None:
                table.delete.append(key)
            else:
                table.put.append(type_.cleared(key))
        else:
            table.put.append(operation.row)
            _add(plan, type_.effects(key, operation.row.basis), operation.row)


def _settle(plan: Plan, table: TablePlan, operations: Mapping[str, Operation], met: Met) -> None:
    """Plan a table in which the lowest key of a thing is indexed, and the others kept aside."""
    type_ = table.type
    # Rows were read for every commit of the batch; those of commits that were skipped are nothing.
    removed = {key: basis for key, basis in met.old.items() if key in operations}
    things = {thing_of(type_, basis) for basis in removed.values()}
    candidates: dict[Thing, dict[str, Aside]] = defaultdict(dict)
    for key, operation in operations.items():
        if operation.row is not None:
            thing = thing_of(type_, operation.row.basis)
            candidates[thing][key] = Aside(key, thing, operation.cid, operation.row)
            things.add(thing)
    waiting = set()
    for aside in met.aside:
        if aside.uri in operations:
            table.aside_delete.append(aside.uri)
        elif aside.thing in things:
            candidates[aside.thing][aside.uri] = aside
            waiting.add(aside.uri)
    for thing in sorted(things):
        holder = met.holders.get(thing)
        if holder is not None and holder in operations:
            holder = None
        of_thing = candidates[thing]
        winner = min(of_thing, default=None)
        if winner is not None and holder is not None:
            if holder < winner:
                winner = None
            else:
                table.demote.append((holder, thing))
                removed[holder] = met.holder_basis[holder]
        for uri, aside in of_thing.items():
            if uri == winner:
                table.put.append(aside.row)
                if uri in waiting:
                    table.aside_delete.append(uri)
            elif uri not in waiting:
                table.aside_put.append((uri, thing, aside.cid, aside.row))
    # Rows that change go before rows come: so no unique key is ever met twice.
    table.delete.extend(removed)
    plan.removed[type_.table] = removed
    for key, basis in removed.items():
        _take_back(plan, type_.effects(key, basis))
    for row in table.put:
        _add(plan, type_.effects(str(row.values[0]), row.basis), row)


def judged(plan: Plan, flips: Sequence[Flip]) -> None:
    """Let the counts follow judgements that changed: what a gate forbids is not counted."""
    for flip in flips:
        parent, quoted = flip.parent, flip.quoted
        if flip.gated != flip.was_gated and parent is not None and is_post(parent):
            _add_to(plan, POST_REPLIES, parent, -1 if flip.gated else 1)
        if flip.embeds != flip.was_embeds and quoted is not None and is_post(quoted):
            _add_to(plan, POST_QUOTES, quoted, -1 if flip.embeds else 1)


def _add_to(plan: Plan, counter: Counter, key: str, delta: int) -> None:
    _count(plan, counter.table, key)[counter.position] += delta
    plan.emptied[counter.table.name].add(key)


def _count(plan: Plan, table: AggregateTable, key: str) -> list[int]:
    rows = plan.counts[table.name]
    deltas = rows.get(key)
    if deltas is None:
        deltas = rows[key] = [0] * len(table.columns)
    return deltas


def _take_back(plan: Plan, effects: Effects) -> None:
    for (table, position), key in effects.counts:
        _count(plan, table, key)[position] -= 1
        plan.emptied[table.name].add(key)
    for table, key in effects.touches:
        _count(plan, table, key)
        plan.required[table.name].add(key)
        plan.emptied[table.name].add(key)
    viewer = effects.viewer
    if viewer is not None:
        state = plan.viewers.setdefault((viewer.post_uri, viewer.viewer_did), {})
        # What another row of this batch has set meanwhile stays.
        state.setdefault(viewer.column, None)
    for derived, key in effects.derived:
        plan.derived_delete.setdefault(derived, set()).add(key)


def _add(plan: Plan, effects: Effects, row: Row) -> None:
    for (table, position), key in effects.counts:
        _count(plan, table, key)[position] += 1
    for table, key in effects.touches:
        _count(plan, table, key)
        plan.required[table.name].add(key)
    viewer = effects.viewer
    if viewer is not None:
        state = plan.viewers.setdefault((viewer.post_uri, viewer.viewer_did), {})
        state[viewer.column] = str(row.values[0])
    for derived in row.derived:
        plan.derived_put.setdefault(derived.table, []).append(derived)
