"""The registry's questions: which entries can be settled, which posts are to be judged again.

Sides that meet write first and look after: a batch commits its entries and rows, then the registry
looks here for what that makes possible. Looking changes nothing, so it can be done any number of
times. What comes out is bounded: where there is more, it is found by looking again when this much
is settled.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from psycopg import Connection, errors

from actors.messages import RegistryWork
from actors.records import RECORDS
from actors.store.arrays import array, register, text_array
from actors.store.judgement import (
    LOOK_POSTS_SQL,
    LOOK_QUOTES_SQL,
    LOOK_REPLIES_SQL,
    LOOK_THREADS_SQL,
)
from actors.store.writer import SESSION

# What one look returns at most, of entries and of posts; some ten megabytes with ordinary uris.
FOUND_AT_ONCE: Final = 20_000
# A look that takes longer is begun again in a way that can be watched while it goes on.
QUICK_SECONDS: Final = 2.0
# Rows that such a look passes before it is heard of; some tens of milliseconds.
ROWS_IN_A_STEP: Final = 2_000

POST: Final = "app.bsky.feed.post"
# Where a record of each collection is indexed; what is not named here is in generic_records.
_TABLES: Final = tuple(
    (collection, RECORDS[collection].table)
    for collection in (
        POST,
        "app.bsky.feed.repost",
        "app.bsky.feed.generator",
        "app.bsky.graph.list",
        "app.bsky.graph.starterpack",
        "app.bsky.labeler.service",
    )
)


def indexed_sql(uri: str) -> str:
    """Return the condition that the record of this uri (a column) is indexed."""
    there = "(SELECT true FROM {} t WHERE t.uri = {} LIMIT 1)"
    cases = (
        f"WHEN '{collection}' THEN {there.format(table, uri)}" for collection, table in _TABLES
    )
    other = there.format("generic_records", uri)
    return f"CASE split_part({uri}, '/', 4) {' '.join(cases)} ELSE {other} END"


# The first array is of subjects, the second tells of each whether it is known to have come.
_ENTRIES_SQL: Final = f"""
SELECT e.uri, e.awaited, e.author FROM (
    SELECT i.uri FROM unnest(%b::text[], %b::boolean[]) AS i (uri, came)
    WHERE i.came OR {indexed_sql("i.uri")} OFFSET 0
) s CROSS JOIN LATERAL (
    SELECT p.uri, p.awaited, p.author FROM engine_pending p WHERE p.awaited = s.uri OFFSET 0
) e LIMIT %s
"""  # noqa: S608 - it is made of constants


class Claim(NamedTuple):
    """An entry whose subject is there: who may claim it is the shard of the author."""

    uri: str
    awaited: str
    author: str


@dataclass(slots=True)
class Look:
    """What was found: entries to claim, posts to judge (uri and author); `whole` if that is all."""

    claims: list[Claim] = field(default_factory=list)
    judge: dict[str, str] = field(default_factory=dict)
    whole: bool = True


@dataclass(slots=True)
class _Question:
    """Several pieces of work as one: subjects (and whether they came), posts to look at."""

    subjects: dict[str, bool] = field(default_factory=dict)
    posts: dict[str, None] = field(default_factory=dict)
    above: dict[str, None] = field(default_factory=dict)
    gated: dict[str, None] = field(default_factory=dict)

    def looks(self) -> list[tuple[str, Sequence[str]]]:
        """Return the statements that find posts to judge, with the uris they ask about."""
        roots = [*self.above, *(uri for uri in self.gated if uri not in self.above)]
        all_looks = (
            (LOOK_POSTS_SQL, list(self.posts)),
            (LOOK_REPLIES_SQL, list(self.above)),
            (LOOK_THREADS_SQL, roots),
            (LOOK_QUOTES_SQL, list(self.gated)),
        )
        return [(sql, uris) for sql, uris in all_looks if uris]


def prepare(connection: Connection[Any]) -> None:
    """Make a connection one that looks rows up by key, whatever the statistics say."""
    register(connection)
    # A dozen statements run all day: each is prepared the first time it is sent.
    connection.prepare_threshold = 0
    for name, value in SESSION.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])


def look(
    connection: Connection[Any],
    works: Iterable[RegistryWork],
    *,
    may_wait: Callable[[str], bool] = lambda _uri: True,
    at_most: int = FOUND_AT_ONCE,
    quick_seconds: float = QUICK_SECONDS,
    progress: Callable[[], None] = lambda: None,
) -> Look:
    """Find what some work makes possible, of entries and of posts `at_most` so many each.

    Subjects that came and of which `may_wait` says no are not looked for. A look that does not end
    within `quick_seconds`, at a thread of a million replies for example, is done in small steps,
    with a call of `progress` after each.
    """
    question = _question(works, may_wait)
    found = Look()
    try:
        with connection.transaction():
            _set_timeout(connection, quick_seconds)
            _find_entries(connection, question, found, at_most)
            _find_posts(connection, question, found, at_most)
    except errors.QueryCanceled:
        found = Look()
        with connection.transaction():
            _find_entries(connection, question, found, at_most)
            _find_posts_in_steps(connection, question, found, at_most, progress)
    return found


def _question(works: Iterable[RegistryWork], may_wait: Callable[[str], bool]) -> _Question:
    question = _Question()
    for work in works:
        for uri in work.waiting:
            question.subjects.setdefault(uri, False)
        for uri in work.arrived:
            if may_wait(uri):
                question.subjects[uri] = True
            if is_post(uri):
                question.above[uri] = None
        question.posts.update(dict.fromkeys(work.judge))
        question.above.update(dict.fromkeys(work.changed))
        question.gated.update(dict.fromkeys(work.gates))
    return question


def is_post(uri: str) -> bool:
    """Whether a uri is a post's."""
    return uri.split("/", 4)[3:4] == [POST]


def _set_timeout(connection: Connection[Any], seconds: float) -> None:
    connection.execute(
        "SELECT set_config('statement_timeout', %s, true)", [f"{max(1.0, seconds * 1000):.0f}"]
    )


def _find_entries(
    connection: Connection[Any], question: _Question, found: Look, at_most: int
) -> None:
    if not question.subjects:
        return
    parameters = [
        text_array(list(question.subjects)),
        array("boolean", list(question.subjects.values())),
        at_most,
    ]
    rows = connection.execute(_ENTRIES_SQL.encode(), parameters).fetchall()
    found.claims = [Claim(*row) for row in rows]
    found.whole = found.whole and len(rows) < at_most


def _find_posts(
    connection: Connection[Any], question: _Question, found: Look, at_most: int
) -> None:
    cursors = []
    with connection.pipeline():
        for sql, uris in question.looks():
            limited = f"SELECT * FROM ({sql}) AS l (uri, author) WHERE l.uri IS NOT NULL LIMIT %s"  # noqa: S608
            cursors.append(connection.execute(limited.encode(), [text_array(uris), at_most]))
    for cursor in cursors:
        rows = cursor.fetchall()
        found.judge.update(rows)
        found.whole = found.whole and len(rows) < at_most


def _find_posts_in_steps(
    connection: Connection[Any],
    question: _Question,
    found: Look,
    at_most: int,
    progress: Callable[[], None],
) -> None:
    for sql, uris in question.looks():
        with connection.cursor(name="look") as cursor:
            cursor.execute(sql.encode(), [text_array(uris)])
            while rows := cursor.fetchmany(ROWS_IN_A_STEP):
                progress()
                found.judge.update((uri, author) for uri, author in rows if uri is not None)
                if len(found.judge) >= at_most:
                    found.whole = False
                    return
