"""Tallies: how much each actor did in a run, counted in the transactions that did it.

So they are right after any crash. Counters of a process die with it; these do not.
"""

from collections.abc import Mapping
from typing import Any, Final

from psycopg import Connection

from actors.store.arrays import Array, array, text_array

ADD_SQL: Final = (
    "INSERT INTO engine_tallies AS t (epoch, actor, name, amount)"
    " SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::bigint[])"
    " ON CONFLICT (epoch, actor, name) DO UPDATE SET amount = t.amount + excluded.amount"
)


def add_parameters(epoch: int, actor: str, amounts: Mapping[str, int]) -> list[Array]:
    """Return the parameters of ADD_SQL."""
    names = sorted(name for name, amount in amounts.items() if amount)
    return [
        array("bigint", [epoch] * len(names)),
        text_array([actor] * len(names)),
        text_array(names),
        array("bigint", [amounts[name] for name in names]),
    ]


def read(connection: Connection[Any], epoch: int) -> dict[str, int]:
    """Return the tallies of a run, summed over its actors, by name."""
    rows = connection.execute(
        "SELECT name, sum(amount)::bigint FROM engine_tallies WHERE epoch = %s"
        " GROUP BY name ORDER BY name",
        [epoch],
    ).fetchall()
    return dict(rows)
