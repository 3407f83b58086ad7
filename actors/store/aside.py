"""Rows of records that are kept aside in `engine_duplicates`: packed, and read again."""

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.records.record import RecordType, Row, Value
from actors.store.schema import TABLES


def pack(type_: RecordType, row: Row) -> bytes:
    """Encode a row to be kept aside: its columns by name, times as microseconds."""
    definition = TABLES[type_.table]
    return msgspec.json.encode(
        {
            name: msgspec.Raw(value)
            if isinstance(value, bytes) and definition.type_of(name) == "jsonb"
            else value
            for name, value in zip(type_.columns, row.values, strict=True)
        }
    )


def unpack(type_: RecordType, body: dict[str, Any]) -> tuple[Value, ...]:
    """Return the values of a row that was packed, in the order of its type's columns."""
    return from_database(type_, [body.get(name) for name in type_.columns])


def from_database(type_: RecordType, columns: Sequence[Any]) -> tuple[Value, ...]:
    """Return a row's values from columns as PostgreSQL gives them (JSON decoded, times as
    microseconds).
    """
    definition = TABLES[type_.table]
    return tuple(
        msgspec.json.encode(value)
        if value is not None and definition.type_of(name) == "jsonb"
        else value
        for name, value in zip(type_.columns, columns, strict=True)
    )
