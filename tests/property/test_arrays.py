"""The arrays that the writer makes by itself, against psycopg's own, on a real server."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from actors.store.arrays import array, register
from actors.store.embedded import EmbeddedPostgres

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the tables hold naive times in UTC
MICROSECOND = timedelta(microseconds=1)

# PostgreSQL takes any character but NUL, and no lone surrogates.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "jsonb": JSON.filter(lambda value: value is not None),
    "timestamp": st.datetimes(),
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "bytea": st.binary(),
}


@pytest.fixture(scope="module")
def connection(embedded_server: EmbeddedPostgres) -> Any:
    with psycopg.connect(embedded_server.conninfo("postgres"), autocommit=True) as connection:
        register(connection)
        yield connection


def ours(type_: str, value: Any) -> Any:
    """A value as `array` takes it."""
    if value is None:
        return None
    if type_ == "jsonb":
        return json.dumps(value, ensure_ascii=False).encode()
    if type_ == "timestamp":
        return (value - EPOCH) // MICROSECOND
    return value


def theirs(type_: str, value: Any) -> Any:
    """A value as psycopg takes it."""
    return Jsonb(value) if type_ == "jsonb" and value is not None else value


def round_trip(connection: psycopg.Connection, type_: str, values: Sequence[Any]) -> None:
    encoded = array(type_, [ours(type_, value) for value in values])
    row = connection.execute(
        f"SELECT %b::{type_}[], %b::{type_}[] IS NOT DISTINCT FROM %s::{type_}[]".encode(),
        [encoded, encoded, [theirs(type_, value) for value in values]],
    ).fetchone()
    assert row == (list(values), True)


@pytest.mark.parametrize("type_", VALUES)
def test_an_array_is_read_back_as_it_was_sent_and_as_psycopg_sends_it(
    connection: psycopg.Connection, type_: str
) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.none() | VALUES[type_], max_size=8))
    def check(values: list[Any]) -> None:
        round_trip(connection, type_, values)

    check()


@pytest.mark.parametrize("type_", VALUES)
@pytest.mark.parametrize("values", [[], [None], [None, None]], ids=["empty", "null", "nulls"])
def test_arrays_of_nothing(connection: psycopg.Connection, type_: str, values: list[None]) -> None:
    round_trip(connection, type_, values)


LIMITS: dict[str, list[Any]] = {
    # Lengths up to 511 bytes are looked up, those above are packed.
    "text": ["", "x" * 511, "x" * 512, "\N{GRINNING FACE}" * 128, "é" * 500_000, "x" * 1_000_000],
    "jsonb": [{}, [], "", 0, {"": ""}, {"text": "x" * 1_000_000}, ["\N{GRINNING FACE}"] * 10_000],
    "timestamp": [EPOCH, datetime.min, datetime.max, datetime(2000, 1, 1)],  # noqa: DTZ001, DTZ901 - naive UTC
    "boolean": [True, False, None],
    "integer": [-(2**31), -1, 0, 1, 2**31 - 1],
    "bigint": [-(2**63), -1, 0, 1, 2**63 - 1],
    "bytea": [b"", b"\0", bytes(range(256)), b"\xff" * 1_000_000],
}


@pytest.mark.parametrize("type_", LIMITS)
def test_the_smallest_and_the_largest_values(connection: psycopg.Connection, type_: str) -> None:
    round_trip(connection, type_, LIMITS[type_])


def test_an_array_of_many_values(connection: psycopg.Connection) -> None:
    round_trip(connection, "text", [f"value {number}" for number in range(50_000)])


def test_a_type_that_the_schema_does_not_have_is_refused() -> None:
    with pytest.raises(KeyError):
        array("varchar", ["x"])
