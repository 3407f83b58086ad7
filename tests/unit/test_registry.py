"""What the registry finds: entries whose subject is there, posts that differ from their rules."""

import re
from collections.abc import Iterator

import pytest

from actors.messages import RegistryWork
from actors.store import registry, registry_sweep
from actors.store.arrays import text_array
from actors.store.judgement import JUDGE_SQL
from actors.store.registry import Claim, Look, look, prepare
from actors.store.session import Connection
from tests.writing import make_index, session

ANN, BOB, ZOE = "did:plc:ann", "did:plc:bob", "did:plc:zoe"


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    make_index(database)
    with session(database, "pending") as opened:
        prepare(opened)
        yield opened


def post_uri(author: str, key: str) -> str:
    return f"at://{author}/app.bsky.feed.post/{key}"


def post(
    connection: Connection,
    author: str,
    key: str,
    parent: str | None = None,
    root: str | None = None,
) -> str:
    uri = post_uri(author, key)
    connection.execute(
        "INSERT INTO posts (uri, cid, author_did, text, parent_uri, root_uri, created_at)"
        " VALUES (%s, 'c', %s, '', %s, %s, now())",
        [uri, author, parent, root or parent],
    )
    return uri


def gate(connection: Connection, uri: str) -> None:
    connection.execute(
        "INSERT INTO thread_gates (post_uri, owner_did, allow) VALUES (%s, 'did:plc:o', '[]')",
        [uri],
    )


def waits(connection: Connection, author: str, key: str, awaited: str, kind: str = "like") -> Claim:
    uri = f"at://{author}/app.bsky.feed.{kind}/{key}"
    connection.execute(
        "INSERT INTO engine_pending (uri, awaited, author, kind) VALUES (%s, %s, %s, %s)",
        [uri, awaited, author, kind],
    )
    return Claim(uri, awaited, author)


def claims(found: Look) -> set[Claim]:
    assert found.whole
    return set(found.claims)


def test_entries_of_what_arrived_are_found_and_no_others(connection: Connection) -> None:
    here, there = post_uri(ANN, "here"), post_uri(ANN, "there")
    first, second = waits(connection, BOB, "1", here), waits(connection, ZOE, "2", here)
    waits(connection, BOB, "3", there)
    work = RegistryWork(arrived=(here, post_uri(ANN, "nobody")))
    assert claims(look(connection, [work])) == {first, second}


def test_what_nobody_may_wait_for_is_not_looked_for(connection: Connection) -> None:
    here = post_uri(ANN, "here")
    entry = waits(connection, BOB, "1", here)
    work = RegistryWork(arrived=(here,))
    assert claims(look(connection, [work], may_wait=lambda uri: uri == here)) == {entry}
    assert claims(look(connection, [work], may_wait=lambda _uri: False)) == set()


def test_what_waits_is_found_only_when_its_subject_is_indexed(connection: Connection) -> None:
    here, missing = post(connection, ANN, "here"), post_uri(ANN, "missing")
    entry = waits(connection, BOB, "1", here)
    waits(connection, BOB, "2", missing)
    work = RegistryWork(waiting=(here, missing))
    # The filter is for what arrives: what waits is always looked for.
    assert claims(look(connection, [work], may_wait=lambda _uri: False)) == {entry}


@pytest.mark.parametrize(
    ("collection", "table", "columns"),
    [
        ("app.bsky.feed.post", "posts", "cid, author_did, text"),
        ("app.bsky.feed.repost", "reposts", "user_did, post_uri"),
        ("app.bsky.feed.generator", "feed_generators", "cid, creator_did, did, display_name"),
        ("app.bsky.graph.list", "lists", "cid, creator_did, name, purpose"),
        ("app.bsky.graph.starterpack", "starter_packs", "cid, creator_did, name"),
        ("app.bsky.labeler.service", "labeler_services", "cid, creator_did, policies"),
        ("org.example.thing", "generic_records", "cid, author_did, record_type, record"),
    ],
)
def test_each_kind_of_subject_is_looked_for_in_its_table(
    connection: Connection, collection: str, table: str, columns: str
) -> None:
    uri = f"at://{ANN}/{collection}/self"
    entry = waits(connection, BOB, "1", uri)
    work = RegistryWork(waiting=(uri,))
    assert claims(look(connection, [work])) == set()
    values = ", ".join("'0'" for _ in columns.split(","))
    connection.execute(
        f"INSERT INTO {table} (uri, created_at, {columns}) VALUES (%s, now(), {values})".encode(),
        [uri],
    )
    assert claims(look(connection, [work])) == {entry}


def test_a_subject_that_came_and_went_again_still_ends_the_wait(connection: Connection) -> None:
    gone = post_uri(ANN, "gone")
    entry = waits(connection, BOB, "1", gone)
    works = [RegistryWork(waiting=(gone,)), RegistryWork(arrived=(gone,))]
    assert claims(look(connection, works)) == {entry}
    assert claims(look(connection, works[::-1])) == {entry}


def test_posts_that_differ_are_found_below_what_arrived_or_changed_and_below_gates(
    connection: Connection,
) -> None:
    top = post(connection, ANN, "top")
    gate(connection, top)
    first = post(connection, BOB, "first", top)
    second = post(connection, ZOE, "second", first, top)
    for work in (
        RegistryWork(gates=(top,)),
        RegistryWork(arrived=(top,)),
        RegistryWork(changed=(top,)),
    ):
        assert look(connection, [work]).judge == {first: BOB, second: ZOE}
    assert look(connection, [RegistryWork(arrived=(first,))]).judge == {second: ZOE}
    assert look(connection, [RegistryWork(changed=(first,))]).judge == {second: ZOE}
    assert look(connection, [RegistryWork(judge=(first,))]).judge == {first: BOB}
    assert look(connection, [RegistryWork(judge=(top, post_uri(ANN, "gone")))]).judge == {}
    connection.execute(JUDGE_SQL.encode(), [text_array([first, second])])
    assert look(connection, [RegistryWork(gates=(top,), judge=(first,))]).judge == {}


def test_quotes_that_differ_are_found_below_gates(connection: Connection) -> None:
    quoted, quote = post(connection, ANN, "quoted"), post(connection, BOB, "quote")
    connection.execute(
        "INSERT INTO quotes (uri, cid, post_uri, quoted_uri, created_at)"
        " VALUES ('q', 'c', %s, %s, now())",
        [quote, quoted],
    )
    connection.execute(
        "INSERT INTO post_gates (post_uri, embedding_rules) VALUES (%s,"
        """ '[{"$type": "app.bsky.feed.postgate#disableRule"}]')""",
        [quoted],
    )
    assert look(connection, [RegistryWork(gates=(quoted,))]).judge == {quote: BOB}


@pytest.fixture
def big_thread(connection: Connection) -> str:
    """A gated thread of 10,000 replies that were never judged."""
    top = post(connection, ANN, "top")
    gate(connection, top)
    connection.execute(
        "INSERT INTO posts (uri, cid, author_did, text, parent_uri, root_uri, created_at)"
        " SELECT 'at://did:plc:bob/app.bsky.feed.post/' || n, 'c', 'did:plc:bob', '', %s, %s, now()"
        " FROM generate_series(1, 10000) n",
        [top, top],
    )
    return top


@pytest.mark.parametrize("quick_seconds", [100.0, 0.001])
def test_a_look_takes_so_many_at_once_and_the_others_when_those_are_settled(
    connection: Connection, big_thread: str, quick_seconds: float
) -> None:
    rounds = 0
    while True:
        found = look(
            connection,
            [RegistryWork(gates=(big_thread,))],
            at_most=3_000,
            quick_seconds=quick_seconds,
        )
        assert len(found.judge) <= 5_000
        if not found.judge:
            break
        rounds += 1
        connection.execute(JUDGE_SQL.encode(), [text_array(list(found.judge))])
    assert found.whole
    assert rounds in (3, 4)


def test_entries_are_taken_so_many_at_once(connection: Connection) -> None:
    here = post_uri(ANN, "here")
    all_claims = {waits(connection, BOB, str(n), here) for n in range(10)}
    found = look(connection, [RegistryWork(arrived=(here,))], at_most=10)
    assert not found.whole
    found = look(connection, [RegistryWork(arrived=(here,))], at_most=11)
    assert claims(found) == all_claims


def test_a_look_that_takes_long_is_heard_of(connection: Connection, big_thread: str) -> None:
    steps: list[int] = []
    connection.execute("UPDATE posts SET violates_thread_gate = root_uri IS NOT NULL")
    found = look(
        connection,
        [RegistryWork(gates=(big_thread,))],
        quick_seconds=0.001,
        progress=lambda: steps.append(1),
    )
    assert found == Look()
    assert len(steps) == 5


def test_a_look_leaves_the_session_as_it_was(connection: Connection) -> None:
    before = connection.execute("SHOW statement_timeout").fetchone()
    look(connection, [RegistryWork(gates=(post_uri(ANN, "a"),), waiting=(post_uri(ANN, "b"),))])
    assert connection.execute("SHOW statement_timeout").fetchone() == before


def test_no_statement_ever_scans_a_table_or_hashes_one(connection: Connection) -> None:
    """Not even one that was planned while the tables were empty."""
    at = "'at://a'"
    statements = {
        registry._ENTRIES_SQL: ["'{a}'", "'{t}'", "10"],
        registry_sweep._EXPIRE_SQL: ["60", "10"],
        registry_sweep._DROP_SQL: ["10", "1", "1"],
        registry_sweep._SLICE_END_SQL: [at, at, "10"],
        registry_sweep._OVERDUE_SQL: [at] * 4,
        registry_sweep._AWAITED_SQL: [at, "10"],
        registry_sweep._RELEASE_SQL: [at, "10"],
    }
    for sql, values in statements.items():
        text = sql.replace("%(after)s", "$1").replace("%(limit)s", "$2")
        for number in range(1, len(values) + 1):
            text = re.sub("%[sb]", f"${number}", text, count=1)
        connection.execute(f"PREPARE asked AS {text}".encode())
        lines = connection.execute(f"EXPLAIN EXECUTE asked ({', '.join(values)})".encode())
        plan = "\n".join(line for (line,) in lines.fetchall())
        connection.execute("DEALLOCATE asked")
        for whole in ("Seq Scan", "Hash ", "hashed", "Merge"):
            assert whole not in plan, plan
        # Read in the order of an index, up to a limit, is the one thing that needs no condition.
        scans = plan.count("Index Scan") + plan.count("Index Only Scan")
        in_order = "ORDER BY created_at LIMIT" in sql and "WHERE created_at" not in sql
        assert scans == plan.count("Index Cond:") + in_order, plan
