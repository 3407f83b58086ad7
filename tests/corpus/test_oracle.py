"""Our index against the tables of the network's own, after the same events.

A second opinion, not the judge: where the two differ, our rules say why, and each difference is one
of those listed. A new difference fails, and so does one that is listed and is there no more.

The differences that there are: `oracle_reasons.py` for records, judgements, counts and accounts,
`oracle_notices.py` for notifications. What is not compared is named in `oracle_comparisons.py`.
"""

from collections import Counter
from collections.abc import Sequence

import psycopg
import pytest

from actors.store.embedded import EmbeddedPostgres
from actors.store.verify import verify
from tests.corpus import files, oracle_index
from tests.corpus.oracle_comparisons import COMPARISONS, NOT_COMPARED, NOWHERE
from tests.corpus.oracle_events import events
from tests.corpus.oracle_facts import Facts, Reason
from tests.corpus.oracle_notices import NOTICES
from tests.corpus.oracle_reasons import REASONS
from tests.corpus.oracle_tables import Difference, Sides, read_sides

ALL_REASONS = (*REASONS, *NOTICES)
# Rows of the other index that agree with ours in every column, of how many.
AGREE = {
    "post": (1067, 1079),
    "like": (1264, 1265),
    "repost": (412, 412),
    "follow": (618, 618),
    "actor_block": (12, 12),
    "list": (15, 15),
    "list_item": (73, 73),
    "list_block": (7, 7),
    "feed_generator": (7, 7),
    "starter_pack": (4, 4),
    "labeler": (3, 3),
    "verification": (7, 7),
    "post_gate": (2, 2),
    "thread_gate": (7, 7),
    "quote": (120, 120),
    "post_embed_record": (124, 124),
    "feed_item": (1488, 1497),
    "profile": (15, 56),
    "post_agg": (738, 745),
    "profile_agg": (63, 66),
    "duplicate_record": (5, 12),
    "record": (3594, 3598),
    "actor": (64, 64),
    "actor_sync": (65, 66),
    "notification": (3524, 3573),
    "outcomes": (187, 208),
}


@pytest.fixture(scope="module")
def facts(embedded_server: EmbeddedPostgres) -> Facts:
    """Both sides, and the events. One filled index serves all tests: they only read."""
    conninfo = embedded_server.conninfo("oracle")
    with psycopg.connect(embedded_server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE oracle TEMPLATE template0")
        try:
            oracle_index.fill(conninfo)
            assert verify(conninfo) == []
            return Facts(read_sides(conninfo), events())
        finally:
            connection.execute("DROP DATABASE oracle WITH (FORCE)")


def complaints(facts: Facts, reasons: Sequence[Reason]) -> list[str]:
    """What is wrong: differences without a reason or with several, and reasons that do not cover
    as many as they say.
    """
    covered: Counter[Reason] = Counter()
    wrong = []
    for difference in facts.differences.values():
        found = [reason for reason in reasons if covers(reason, difference, facts)]
        covered.update(found)
        if len(found) != 1:
            wrong.append(f"{len(found)} reasons: {difference}")
    for reason in reasons:
        if covered[reason] != reason.count:
            what = f"{reason.table}, {reason.column}: {reason.why}"
            wrong.append(f"{covered[reason]} and not {reason.count} in {what}")
    return wrong


def covers(reason: Reason, difference: Difference, facts: Facts) -> bool:
    """Whether a reason is one for this difference."""
    same = (reason.table, reason.column) == (difference.table, difference.column)
    return same and reason.holds(difference, facts)


def test_every_difference_has_one_reason_and_every_reason_its_differences(facts: Facts) -> None:
    assert all(reason.count > 0 for reason in ALL_REASONS)
    wrong = complaints(facts, ALL_REASONS)
    assert not wrong, "\n".join(wrong)


def test_a_difference_that_is_not_listed_fails(facts: Facts) -> None:
    ours = {**facts.sides.ours, "like": dict(facts.sides.ours["like"])}
    uri = next(uri for uri in ours["like"] if uri in facts.sides.theirs["like"])
    del ours["like"][uri]
    damaged = Facts(Sides(ours, facts.sides.theirs), facts.events)
    (complaint,) = complaints(damaged, ALL_REASONS)
    assert complaint.startswith("0 reasons:")
    assert uri in complaint


def test_a_listed_difference_that_is_there_no_more_fails(facts: Facts) -> None:
    healed = {**facts.sides.ours, "quote": facts.sides.theirs["quote"]}
    (complaint,) = complaints(Facts(Sides(healed, facts.sides.theirs), facts.events), ALL_REASONS)
    assert complaint.startswith("0 and not 1 in quote")


def test_nearly_all_rows_are_the_same(facts: Facts) -> None:
    agree = {
        table: (
            sum(facts.sides.ours[table].get(key) == row for key, row in rows.items()),
            len(rows),
        )
        for table, rows in facts.sides.theirs.items()
    }
    assert agree == AGREE


def test_what_is_not_compared_is_named() -> None:
    held = {path.name.removesuffix(".csv.gz") for path in files.DATA.glob("oracle/*.csv.gz")}
    assert held == {*COMPARISONS, *NOT_COMPARED, "outcomes"}


def test_every_column_is_compared_or_named(facts: Facts) -> None:
    for table, comparison in COMPARISONS.items():
        columns = set(files.oracle(table)[0])
        compared = set(next(iter(facts.sides.ours[table].values())))
        named = set(comparison.left_out) | (columns & NOWHERE.keys() - compared)
        assert compared <= columns
        assert columns == compared | named, table
        assert not compared & named, table
