"""The index that `bench.verify` makes is sound, and its drift is mended."""

import psycopg

from actors.store.repair import repair
from actors.store.verify import verify
from bench.verify import DRIFT, fill
from tests.writing import make_index


def test_the_index_of_the_benchmark_is_sound_and_can_be_mended(database: str) -> None:
    make_index(database)
    assert fill(database, posts=2_000, users=100) > 20_000
    assert verify(database) == []
    with psycopg.connect(database) as connection:
        for statement in DRIFT:
            assert connection.execute(statement.encode()).rowcount > 0
    result = repair(database, slice_rows=500)
    assert result.left == []
    assert result.mended.total() > 2_000
    assert verify(database, slice_rows=300) == []
