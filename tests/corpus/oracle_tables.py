"""Our tables as the other index would write them, beside its own, and where they differ.

Values are compared as text in its manner: empty, absent and false are one, times have milliseconds.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from tests.corpus import files
from tests.corpus.oracle_comparisons import COMPARISONS, FLAGS, TYPE_TABLES, Comparison

Row = dict[str, str]
Rows = dict[str, Row]

# In place of a column's name where a row is on one side only.
OURS, THEIRS = "only here", "only there"


class Difference(NamedTuple):
    """One value that differs, or (`column` OURS or THEIRS) one row that only one side has."""

    table: str
    key: str
    column: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Sides:
    """Both indexes: table, key, column, all as text; the tables bear the other index's names."""

    ours: dict[str, Rows]
    theirs: dict[str, Rows]

    def differences(self) -> Iterator[Difference]:
        """All that differs, in order."""
        for table, ours in self.ours.items():
            theirs = self.theirs[table]
            for key in sorted({*ours, *theirs}):
                mine, other = ours.get(key), theirs.get(key)
                if table in COMPARISONS and COMPARISONS[table].counts:
                    mine = mine or _zeros(key, other)
                    other = other or _zeros(key, mine)
                if other is None:
                    yield Difference(table, key, OURS, str(mine), "")
                elif mine is None:
                    yield Difference(table, key, THEIRS, "", str(other))
                else:
                    for column, value in mine.items():
                        if value != other[column]:
                            yield Difference(table, key, column, value, other[column])


def read_sides(conninfo: str) -> Sides:
    """Read our database and the tables of the other index."""
    ours: dict[str, Rows] = {}
    theirs: dict[str, Rows] = {}
    with psycopg.connect(conninfo) as connection:
        for table, comparison in COMPARISONS.items():
            cursor = connection.execute(comparison.query.encode())
            assert cursor.description is not None
            columns = [column.name for column in cursor.description]
            found = (
                {name: _text(value) for name, value in zip(columns, row, strict=True)}
                for row in cursor
            )
            ours[table] = _by_key(found, comparison)
            theirs[table] = _by_key(
                (
                    {name: _plain(row, name, comparison) for name in columns}
                    for row in files.oracle(table)
                ),
                comparison,
            )
    sides = Sides(ours, theirs)
    _leave_out_dashes(sides)
    _translate_subjects(sides)
    sides.ours["outcomes"] = {key: _outcome(row, ours) for key, row in _special_records()}
    sides.theirs["outcomes"] = dict(_special_records())
    return sides


def _by_key(rows: Iterator[Row], comparison: Comparison) -> Rows:
    found: Rows = {}
    for row in rows:
        key = " ".join(row[name] for name in comparison.key)
        assert key not in found, f"{key} twice"
        found[key] = row
    return found


def _text(value: Any) -> str:
    if value is None or value is False or value == []:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return "t" if value is True else str(value)


def _plain(row: Row, name: str, comparison: Comparison) -> str:
    value = row[name]
    if name in comparison.flags:
        return "" if value == "f" else value
    return _text(json.loads(value)) if value and name in comparison.documents else value


def _special_records() -> Iterator[tuple[str, Row]]:
    """What became of special records there, by kind and uri; of accounts it says nothing."""
    for row in files.oracle("outcomes"):
        if row["uri"].startswith("at://"):
            yield f"{row['kind']} {row['uri']}", row


def _outcome(theirs: Row, tables: dict[str, Rows]) -> Row:
    """The same of a special record here."""
    uri = theirs["uri"]
    table = TYPE_TABLES.get(uri.split("/")[3])
    found = {} if table is None else tables[table].get(uri, {})
    return {
        "kind": theirs["kind"],
        "uri": uri,
        "inRecordTable": str(int(uri in tables["record"])),
        "inTypeTable": "" if table is None else str(int(bool(found))),
        "duplicateOf": tables["duplicate_record"].get(uri, {}).get("duplicateOf", ""),
        "extra": ",".join(flag for flag in FLAGS if found.get(flag) == "t"),
    }


def _zeros(key: str, like: Row | None) -> Row | None:
    """The row of a thing of which nothing is counted; its first column is the key."""
    return None if like is None else {**dict.fromkeys(like, "0"), next(iter(like)): key}


def _leave_out_dashes(sides: Sides) -> None:
    """Put a dash on the other side too where our table has no column for a value."""
    for table, columns in (("record", ("cid", "json")), ("notification", ("recordCid",))):
        for key, row in sides.ours[table].items():
            other = sides.theirs[table].get(key, {})
            for column in columns:
                if row[column] == "-":
                    other[column] = "-"


def _translate_subjects(sides: Sides) -> None:
    """Say of notifications of posts what the other index calls their subject.

    Ours is always the post itself; there it is the quoted post, the post of the recipient's that
    is replied to (directly or further up), and nothing for a mention.
    """
    posts, quotes = sides.ours["post"], sides.ours["quote"]
    for row in sides.ours["notification"].values():
        if row["reason"] not in ("mention", "quote", "reply", "subscribed-post"):
            continue
        post = row["recordUri"]
        assert row["reasonSubject"] == post, row
        subject = ""
        if row["reason"] == "quote":
            subject = quotes[post]["subject"]
        elif row["reason"] == "reply":
            subject = posts[post]["replyParent"]
            while posts[subject]["creator"] != row["did"]:
                subject = posts[subject]["replyParent"]
        row["reasonSubject"] = subject
