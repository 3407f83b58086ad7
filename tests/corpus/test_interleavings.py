"""Whatever the order in which the authors of the capture are delivered, the index is the same.

Each author's own order is kept. Late subjects are repaired completely: rows, aggregates, validity
and notifications are those of the reference indexer, which knows no order between authors.

Left out, as it depends on who came first:

* gates that ask for follows or lists: a follow or a member that comes later judges nothing again;
  so neither are the replies of such threads judged here, nor what they tell and how many they are;
* what is told of subjects that were deleted and made again (`Notices.unsure`).

`commit_time`, `commit_seq` and `commit_rev` are compared as well: a frame keeps its number and time
wherever it stands in the stream.
"""

import random
from collections.abc import Sequence
from functools import cache

import libipld
import psycopg
import pytest

from actors.store.verify import verify
from tests import reference_records as kinds
from tests import tables
from tests.corpus import files
from tests.corpus.reference_run import reference
from tests.corpus.reference_run import tables as expected_tables
from tests.histories import Sent, interleaved
from tests.settling import Engine, sure, wrong_waits
from tests.writing import make_index

LATE_RULES = ("followingRule", "followerRule", "listRule")


@cache
def stream() -> tuple[Sent, ...]:
    """The capture's frames with their authors; what has none is of nobody."""
    sent = []
    for frame in files.demo_frames():
        _, body = libipld.decode_dag_cbor_multi(frame)
        sent.append(Sent(body.get("repo") or body.get("did") or "", frame))
    return tuple(sent)


def one_after_the_other(seed: int) -> list[Sent]:
    """All of one author, then all of the next, in a random order of authors."""
    of_author: dict[str, list[Sent]] = {}
    for sent in stream():
        of_author.setdefault(sent.did, []).append(sent)
    authors = sorted(of_author)
    random.Random(seed).shuffle(authors)
    return [sent for did in authors for sent in of_author[did]]


@cache
def judged_late() -> frozenset[str]:
    """Posts of threads whose gate asks for what may come after them."""
    gates = {
        record.fields["post_uri"]
        for record in reference().records.values()
        if record.collection == kinds.THREAD_GATE
        for rule in record.fields["allow"] or []
        if rule["$type"].partition("#")[2] in LATE_RULES
    }
    assert gates, "the capture has such gates"
    posts = expected_tables()["posts"]
    return frozenset(uri for (uri,), row in posts.items() if row["root_uri"] in gates)


def comparable(all_tables: tables.Tables) -> tables.Tables:
    """The tables without what depends on who came first."""
    late = judged_late()
    left = dict(sure(all_tables, reference()))
    left["notifications"] = {
        key: row
        for key, row in left["notifications"].items()
        if row["engine_record_uri"] not in late
    }
    left["posts"] = {
        (uri,): {**row, "violates_thread_gate": None} if uri in late else row
        for (uri,), row in left["posts"].items()
    }
    parents = {expected_tables()["posts"][uri,]["parent_uri"] for uri in late}
    left["post_aggregations"] = {
        (uri,): {**row, "reply_count": None} if uri in parents else row
        for (uri,), row in left["post_aggregations"].items()
    }
    return left


def check(database: str, sent: Sequence[Sent], shards: int, seed: int) -> None:
    index = make_index(database)
    with Engine(index, shards=shards, seed=seed, largest=200) as engine:
        engine.deliver(sent)
        engine.settle()
    ours = tables.read_tables(index)
    assert tables.differences(comparable(expected_tables()), comparable(ours)) == []
    assert wrong_waits(index, reference()) == []
    wrong = verify(index)
    assert [one for one in wrong if one.key not in judged_late()] == []


def test_most_of_the_capture_is_compared() -> None:
    compared, everything = comparable(expected_tables()), expected_tables()
    assert len(judged_late()) < 100
    assert len(compared["notifications"]) > 0.95 * len(everything["notifications"])


@pytest.mark.parametrize("seed", [1, 2])
def test_one_author_after_the_other_gives_the_same_index(database: str, seed: int) -> None:
    check(database, one_after_the_other(seed), 1, seed)


def test_a_random_interleaving_gives_the_same_index(database: str) -> None:
    check(database, interleaved(stream(), random.Random(1)), 2, 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_any_interleaving_gives_the_same_index(database: str, seed: int) -> None:
    check(database, interleaved(stream(), random.Random(seed)), 1 + seed % 4, seed)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    check(database, one_after_the_other(seed), 1 + seed % 4, seed)
