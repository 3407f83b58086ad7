"""Arrays in PostgreSQL's binary format, made in one pass over a column.

The writer sends a batch as one array per column; making them here costs a fraction of what a
general adapter takes, which asks for each element's type anew. Format: PostgreSQL's `array_send`
(dimensions, a flag for nulls, the element type; then length, lower bound; then each element with
its length).
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, ClassVar, Final

from psycopg import Connection, pq
from psycopg.adapt import Dumper

from actors.records.record import Value

_HEAD: Final = Struct("!iiIii").pack
_EMPTY: Final = Struct("!iiI").pack
_LENGTH: Final = Struct("!i").pack
_TIME: Final = Struct("!iq").pack
_INT4: Final = Struct("!ii").pack
_NULL: Final = b"\xff\xff\xff\xff"
_TRUE: Final = b"\x00\x00\x00\x01\x01"
_FALSE: Final = b"\x00\x00\x00\x01\x00"
# Lengths up to this are looked up, not packed: nearly all strings are shorter.
_LENGTHS: Final = [_LENGTH(size) for size in range(512)]
# PostgreSQL counts microseconds from 2000-01-01.
_POSTGRES_EPOCH: Final = 946_684_800_000_000

# Element type and array type of each column type, as in the catalog pg_type.
_OIDS: Final = {
    "text": (25, 1009),
    "jsonb": (3802, 3807),
    "timestamp": (1114, 1115),
    "boolean": (16, 1000),
    "integer": (23, 1007),
    "bigint": (20, 1016),
    "bytea": (17, 1001),
}


class Array:
    """One array parameter, encoded. Each element type has a subclass, so that psycopg tells them
    apart by type.
    """

    __slots__ = ("data",)
    oid: ClassVar[int]

    def __init__(self, data: bytes) -> None:
        self.data = data


class ArrayDumper(Dumper):
    """Hands an `Array` to psycopg as it is."""

    format = pq.Format.BINARY

    def dump(self, obj: Array) -> bytes:
        """Return the encoded array."""
        return obj.data


_ARRAYS: Final[dict[str, type[Array]]] = {
    name: type(f"{name.title()}Array", (Array,), {"__slots__": (), "oid": oid})
    for name, (_, oid) in _OIDS.items()
}
_DUMPERS: Final[dict[type[Array], type[ArrayDumper]]] = {
    of: type(f"{of.__name__}Dumper", (ArrayDumper,), {"oid": of.oid}) for of in _ARRAYS.values()
}


def register(connection: Connection[Any]) -> None:
    """Let a connection take `Array` parameters."""
    for of, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(of, dumper)


def _texts(values: Iterable[Any]) -> list[bytes]:
    out: list[bytes] = []
    append = out.append
    for value in values:
        if value is None:
            append(_NULL)
            continue
        data = value.encode()
        size = len(data)
        append(_LENGTHS[size] if size < 512 else _LENGTH(size))
        append(data)
    return out


def _bytes(values: Iterable[Any]) -> list[bytes]:
    out: list[bytes] = []
    for value in values:
        if value is None:
            out.append(_NULL)
        else:
            out.append(_LENGTH(len(value)))
            out.append(value)
    return out


def _jsons(values: Iterable[Any]) -> list[bytes]:
    out: list[bytes] = []
    for value in values:
        if value is None:
            out.append(_NULL)
        else:
            # The first byte is the version of jsonb's binary format.
            out.append(_LENGTH(len(value) + 1) + b"\x01")
            out.append(value)
    return out


def _times(values: Iterable[Any]) -> list[bytes]:
    return [_NULL if value is None else _TIME(8, value - _POSTGRES_EPOCH) for value in values]


def _booleans(values: Iterable[Any]) -> list[bytes]:
    return [_NULL if value is None else _TRUE if value else _FALSE for value in values]


def _integers(values: Iterable[Any]) -> list[bytes]:
    return [_NULL if value is None else _INT4(4, value) for value in values]


def _bigints(values: Iterable[Any]) -> list[bytes]:
    return [_NULL if value is None else _TIME(8, value) for value in values]


_ENCODERS: Final = {
    "text": _texts,
    "jsonb": _jsons,
    "timestamp": _times,
    "boolean": _booleans,
    "integer": _integers,
    "bigint": _bigints,
    "bytea": _bytes,
}


def array(type_: str, values: Sequence[Value]) -> Array:
    """Encode a column of values (None is NULL) of one of the column types of the schema.

    `timestamp` takes microseconds since 1970 UTC, `jsonb` encoded JSON. Raises KeyError for a type
    that the schema does not have, and whatever encoding an unfit value raises.
    """
    element, _ = _OIDS[type_]
    if not values:
        return _ARRAYS[type_](_EMPTY(0, 0, element))
    body = b"".join(_ENCODERS[type_](values))
    return _ARRAYS[type_](_HEAD(1, 1, element, len(values), 1) + body)


def text_array(values: Sequence[Value]) -> Array:
    """Encode a column of strings."""
    return array("text", values)
