"""What a table is: columns, keys and indexes as data, and the SQL that makes them.

A column is written `name type`, with `!` for NOT NULL, `*` for a part of the primary key (and so
NOT NULL), `~` for a string that serves as a key (collation C), `= expression` for a default.
"""

import re
from dataclasses import dataclass

_COLUMN = re.compile(r"(\w+)([*!~]*) ([a-z0-9 ]+?)(?: = (.+))?")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `type` is PostgreSQL's name, `key_text` asks for the collation C."""

    name: str
    type: str
    required: bool
    key_text: bool
    default: str | None

    def sql(self) -> str:
        """Return the column's definition for CREATE TABLE."""
        parts = [self.name, self.type]
        if self.key_text:
            parts.append('COLLATE "C"')
        if self.required:
            parts.append("NOT NULL")
        if self.default is not None:
            parts.append(f"DEFAULT {self.default}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Table:
    """One table: columns in order, primary key, unique keys, and what else is indexed."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    unique: tuple[str, ...]
    indexes: tuple[str, ...]
    count_indexes: tuple[str, ...]
    storage: str

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in the table's order."""
        return tuple(column.name for column in self.columns)

    def type_of(self, column: str) -> str:
        """Return the PostgreSQL type of a column; raises KeyError for an unknown one."""
        for candidate in self.columns:
            if candidate.name == column:
                return candidate.type
        raise KeyError(f"{self.name}.{column}")

    def create_sql(self) -> str:
        """Return CREATE TABLE for a database of our own."""
        lines = [column.sql() for column in self.columns]
        if self.key:
            lines.append(f"PRIMARY KEY ({', '.join(self.key)})")
        body = ",\n    ".join(lines)
        storage = f" WITH ({self.storage})" if self.storage else ""
        return f"CREATE TABLE IF NOT EXISTS {self.name} (\n    {body}\n){storage}"

    def index_sql(self, *, count_indexes: bool = False) -> dict[str, str]:
        """Return the CREATE INDEX statements by index; those on bare counts only if asked for."""
        statements = {}
        for unique in self.unique:
            name = self._index_name(unique)
            statements[name] = f"CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {self.name} ({unique})"
        plain = self.indexes + (self.count_indexes if count_indexes else ())
        for index in plain:
            expression, _, condition = index.partition(" WHERE ")
            method = ""
            if expression.startswith("gin "):
                method, expression = " USING gin", expression.removeprefix("gin ")
            where = f" WHERE {condition}" if condition else ""
            name = self._index_name(index)
            statements[name] = (
                f"CREATE INDEX IF NOT EXISTS {name} ON {self.name}{method} ({expression}){where}"
            )
        return statements

    def _index_name(self, expression: str) -> str:
        words = re.findall(r"\w+", expression.partition(" WHERE ")[0])
        kept = [word for word in words if word not in ("gin", "DESC")]
        return f"{self.name}_{'_'.join(kept)}_skyshard"


def _column(text: str) -> tuple[Column, bool]:
    match = _COLUMN.fullmatch(text.strip())
    assert match is not None, f"column {text!r} is not written as this file says"
    name, marks, type_, default = match.groups()
    column = Column(name, type_, "!" in marks or "*" in marks, "~" in marks, default)
    return column, "*" in marks


def table(
    name: str,
    columns: str,
    *,
    unique: tuple[str, ...] = (),
    indexes: tuple[str, ...] = (),
    count_indexes: tuple[str, ...] = (),
    storage: str = "",
) -> Table:
    """Make a table of columns that are written as this file says, with commas between them."""
    parsed = [_column(text) for text in re.split(r",\s*(?![^()]*\))", columns.strip())]
    return Table(
        name=name,
        columns=tuple(column for column, _ in parsed),
        key=tuple(column.name for column, in_key in parsed if in_key),
        unique=unique,
        indexes=indexes,
        count_indexes=count_indexes,
        storage=storage,
    )
