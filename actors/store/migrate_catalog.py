"""What a database has already: its relations, their columns, indexes by shape, constraints.

Read from the catalogs, since information_schema hides what a role may not use.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection

from actors.store.schema import CONTRACT

_COLUMNS_SQL: Final = (
    "SELECT c.relname::text, a.attname::text, a.attcollation = 'pg_catalog.\"C\"'::regcollation"
    " FROM pg_class c LEFT JOIN pg_attribute a"
    " ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " WHERE c.relnamespace = current_schema()::regnamespace"
)
# An index whose operators or collation are not those of its columns finds nothing by equality.
_INDEXES_SQL: Final = """
    SELECT c.relname::text, t.relname::text, m.amname::text, i.indisunique, i.indisvalid,
        coalesce(pg_get_expr(i.indpred, i.indrelid), ''),
        ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false)
              FROM generate_series(1, i.indnkeyatts) k ORDER BY k),
        i.indoption::text,
        NOT EXISTS (
            SELECT FROM generate_series(0, i.indnkeyatts - 1) k
            JOIN pg_opclass o ON o.oid = i.indclass[k]
            LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
            WHERE NOT (o.opcdefault OR o.opcname = 'varchar_ops')
               OR (i.indkey[k] <> 0 AND i.indcollation[k] <> 0
                   AND i.indcollation[k] <> a.attcollation)
        )
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_am m ON m.oid = c.relam
    WHERE t.relnamespace = current_schema()::regnamespace
"""
_CONSTRAINTS_SQL: Final = """
    SELECT o.conname::text, o.contype::text, t.relname::text, coalesce(r.relname::text, ''),
        coalesce(x.relname::text, ''),
        ARRAY(SELECT a.attname::text FROM unnest(o.conkey) k
              JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k)
    FROM pg_constraint o JOIN pg_class t ON t.oid = o.conrelid
    LEFT JOIN pg_class r ON r.oid = o.confrelid
    LEFT JOIN pg_class x ON x.oid = o.conindid AND o.contype IN ('u', 'p')
    WHERE t.relnamespace = current_schema()::regnamespace AND o.contype IN ('f', 'u')
"""
_DESCENDING: Final = 1
_NULLS_FIRST: Final = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What an index is apart from its name: `keys` are columns or expressions, `options` their
    order as PostgreSQL keeps it (bits for descending and nulls first), `condition` its predicate.
    """

    table: str
    method: str
    unique: bool
    keys: tuple[str, ...]
    options: tuple[int, ...]
    condition: str

    def finds(self, wanted: "Shape") -> bool:
        """Whether what `wanted` is for can be looked up here, in its order (either way)."""
        width = len(wanted.keys)
        turned = tuple(option ^ (_DESCENDING | _NULLS_FIRST) for option in wanted.options)
        return (
            self.method == wanted.method
            and self.keys[:width] == wanted.keys
            and self.condition in ("", wanted.condition)
            and (self.method != "btree" or self.options[:width] in (wanted.options, turned))
        )

    def forbids(self, wanted: "Shape") -> bool:
        """Whether this keeps out what the unique index `wanted` does, in any order of columns."""
        return (
            self.unique
            and self.condition == wanted.condition
            and len(self.keys) == len(wanted.keys)
            and set(self.keys) == set(wanted.keys)
        )


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is there. One that is not `valid` was left by a build that was cut short."""

    name: str
    shape: Shape
    valid: bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """A foreign key (`kind` f, to the table `target`) or a unique key (`kind` u, with `index`)."""

    name: str
    kind: str
    table: str
    target: str
    index: str
    columns: tuple[str, ...]


@dataclass(slots=True)
class Catalog:
    """What is there. `key_collation` tells whether keys have the collation C, as on a database that
    the engine made: on another one its own tables take after the tables that are there, since an
    index is of no use to a comparison under another collation.
    """

    columns: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    indexes: list[Index] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)
    key_collation: bool = True

    def serves(self, wanted: Shape, name: str, besides: frozenset[str] = frozenset()) -> bool:
        """Whether indexes that are there do what `wanted` is for; those `besides` are to go."""
        there = [
            index.shape
            for index in self.indexes
            if index.valid and index.shape.table == wanted.table and index.name not in besides
        ]
        if any(index.name == name and index.valid for index in self.indexes):
            return True
        if not wanted.unique:
            return any(shape.finds(wanted) for shape in there)
        leads = any(shape.keys[:1] == wanted.keys[:1] and not shape.condition for shape in there)
        return leads and any(shape.forbids(wanted) for shape in there)


def read_catalog(connection: Connection[Any]) -> Catalog:
    """Read what the current schema of a database has."""
    catalog = Catalog()
    is_c: dict[tuple[str, str], bool] = {}
    for relation, column, in_c in connection.execute(_COLUMNS_SQL).fetchall():
        columns = catalog.columns[relation]
        if column is not None:
            columns.add(column)
            is_c[relation, column] = in_c
    keys = [
        (table.name, column.name)
        for table in CONTRACT
        for column in table.columns
        if column.key_text and column.name in table.key
    ]
    catalog.key_collation = next((is_c[key] for key in keys if key in is_c), True)
    for name, table, method, unique, valid, condition, parts, options, usual in connection.execute(
        _INDEXES_SQL
    ).fetchall():
        order = tuple(int(option) for option in options.split())[: len(parts)]
        kind = method if usual else f"{method} of another order"
        shape = Shape(table, kind, unique, tuple(map(plain, parts)), order, plain(condition))
        catalog.indexes.append(Index(name, shape, valid))
    for name, kind, table, target, index, column_names in connection.execute(
        _CONSTRAINTS_SQL
    ).fetchall():
        catalog.constraints.append(
            Constraint(name, kind, table, target, index, tuple(column_names))
        )
    return catalog


def plain(expression: str) -> str:
    """Return an expression without what PostgreSQL adds to it: casts, parentheses, spaces."""
    return re.sub(r"::[a-z ]+|[()\s\"]", "", expression).lower()


def wanted_shape(table: str, text: str, *, unique: bool) -> Shape:
    """Return the shape of an index as the schema writes it: columns, DESC, gin, WHERE."""
    expressions, _, condition = text.partition(" WHERE ")
    method = "btree"
    if expressions.startswith("gin "):
        method, expressions = "gin", expressions.removeprefix("gin ")
    keys = []
    options = []
    for expression in expressions.split(", "):
        descends = expression.endswith(" DESC")
        keys.append(plain(expression.removesuffix(" DESC")))
        options.append(_DESCENDING | _NULLS_FIRST if descends else 0)
    return Shape(table, method, unique, tuple(keys), tuple(options), plain(condition))
