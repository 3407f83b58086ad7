"""Notifications: made to agree with what the records tell, as far as these may have changed.

What a record tells is a function of the tables as they are (`notices`), so work may come in any
order and more than once. It is done in one transaction together with the outbox rows that it
finishes; where a record that went was spoken of by very many others (a post with half a million
likes), theirs are done first, in slices of a transaction each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from psycopg import Connection, Cursor

from actors.messages import NotifierWork, Unverified
from actors.store import notices
from actors.store.arrays import Array, array, register, text_array
from actors.store.fence import CHECK_SQL, LOCK_SQL, Fence
from actors.store.writer import SESSION

__all__ = ["NotificationWriter", "Written", "write"]

# Records looked at by one statement, and notifications removed by one; what more there is to do
# because of what went has transactions of its own.
SLICE: Final = 4_000
CLAIM_SQL: Final = "DELETE FROM engine_outbox WHERE id = ANY(%b::bigint[]) RETURNING id"
# Records that nobody likes, reposts, quotes or replies to.
_NO_SUBJECTS: Final = notices.NOTICES.keys() - {notices.POST, notices.REPOST}


@dataclass(slots=True)
class Written:
    """What was done, by reason: notifications made, removed, and those that the table cannot hold
    since their uri is too long.
    """

    made: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    too_long: Counter[str] = field(default_factory=Counter)

    def add(self, done: str, reason: str, amount: int) -> None:
        """Count something under one of the three names."""
        counter: Counter[str] = getattr(self, done)
        counter[reason] += amount

    def include(self, other: "Written") -> None:
        """Add what another transaction did."""
        for name in self.__slots__:
            getattr(self, name).update(getattr(other, name))


class _TooMuch(Exception):
    """More follows from the work than one transaction should do."""


@dataclass(slots=True)
class _Todo:
    """Several pieces of work as one; `records` says of each whether it is fresh. Of those in `past`
    nobody is told anew.
    """

    records: dict[str, bool] = field(default_factory=dict)
    past: set[str] = field(default_factory=set)
    gone: dict[str, None] = field(default_factory=dict)
    extended: dict[str, None] = field(default_factory=dict)
    unverified: dict[str, Unverified] = field(default_factory=dict)
    purged: dict[str, None] = field(default_factory=dict)

    def add(self, work: NotifierWork) -> None:
        """Take in the next piece of work, in the order in which they were written."""
        records = self.records
        for uri in work.past:
            # Whoever is to be told of an earlier version is told all the same.
            if uri not in records:
                records[uri] = False
                self.past.add(uri)
        for uri in work.records:
            records.setdefault(uri, False)
            self.past.discard(uri)
        for uri in work.gone:
            records.setdefault(uri, False)
            self.gone[uri] = None
        for uri in work.extended:
            records.setdefault(uri, False)
            self.extended[uri] = None
        for uri in work.fresh:
            records[uri] = True
        for lost in work.unverified:
            before = self.unverified.get(lost.uri)
            if lost.issuer != lost.subject and (before is None or before.time < lost.time):
                self.unverified[lost.uri] = lost
        for did in work.purged:
            self.purged[did] = None
            # What was told before by the purged goes, and what they tell since then stays.
            for uri in [uri for uri, lost in self.unverified.items() if lost.issuer == did]:
                del self.unverified[uri]

    def affecting(self) -> dict[str, Array] | None:
        """Return the parameters of AFFECTED_SQL; None where nothing can follow from the work."""
        subjects: list[str] = []
        by_collection: dict[str, list[str]] = {}
        for uri in self.gone:
            collection = _collection(uri)
            if collection not in _NO_SUBJECTS:
                subjects.append(uri)
                by_collection.setdefault(collection, []).append(uri)
        if not subjects and not self.extended:
            return None
        return {
            "subjects": text_array(subjects),
            "posts": text_array(by_collection.get(notices.POST, [])),
            "reposts": text_array(by_collection.get(notices.REPOST, [])),
            "packs": text_array(by_collection.get(notices.STARTER_PACK, [])),
            "extended": text_array(list(self.extended)),
        }

    def without_consequences(self) -> "_Todo":
        """Return what is left when the purges and all that follows from the work are done."""
        return _Todo(records=self.records, past=self.past, unverified=self.unverified)


def _collection(uri: str) -> str:
    parts = uri.split("/", 4)
    return parts[3] if len(parts) == 5 else ""


def _todo(works: Iterable[NotifierWork]) -> _Todo:
    todo = _Todo()
    for work in works:
        todo.add(work)
    return todo


class NotificationWriter:
    """Does the notifier's work on one connection.

    `crash_point` is called with a name where a crash must be survived, `progress` in between long
    work. The connection must be in autocommit mode and belong to nobody else.
    """

    def __init__(
        self,
        connection: Connection[Any],
        fence: Fence,
        *,
        crash_point: Callable[[str], None] = lambda _name: None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._crash_point = crash_point
        self._progress = progress
        register(connection)
        connection.prepare_threshold = 0
        for name, value in SESSION.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        limits = dict(connection.execute(notices.LIMITS_SQL).fetchall())
        self._agree = {
            collection: notices.agree_sql(notice, limits)
            for collection, notice in notices.NOTICES.items()
        }
        self._purge = notices.purge_sql(SLICE)

    def write(self, works: Sequence[NotifierWork], rows: Sequence[int] = ()) -> Written:
        """Do work, and delete its rows of the outbox in the transaction that ends it.

        `rows` are the rows of `works`, in the same order; what has no row there any more was done
        before, and is not done again. Without `rows` all of it is done. Raises Fenced when this
        actor has been replaced, and what PostgreSQL answers.
        """
        written = Written()
        try:
            with self._transaction():
                there = self._claim(rows)
                todo = _todo(
                    work for work, row in zip_longest(works, rows) if row is None or row in there
                )
                records = self._consequences(todo, written)
                self._agree_on({**records, **todo.records}, todo, written)
        except _TooMuch:
            written = self._write_in_slices(todo)
            with self._transaction():
                self._claim(rows)
                rest = todo.without_consequences()
                self._agree_on(rest.records, rest, written)
        self._crash_point("after_commit")
        return written

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            yield
            self._crash_point("before_commit")

    def _claim(self, rows: Sequence[int]) -> set[int]:
        """Check the fence and delete rows of the outbox; returns those that were there."""
        connection = self._connection
        with connection.pipeline():
            connection.execute(LOCK_SQL)
            fence = connection.execute(CHECK_SQL, [self._fence.actor])
            claimed = connection.execute(CLAIM_SQL, [array("bigint", list(rows))])
        self._fence.demand(fence.fetchone())
        return {row for (row,) in claimed.fetchall()}

    def _consequences(self, todo: _Todo, written: Written) -> dict[str, bool]:
        """Do the purges, and find the records that are to be looked at because of the work.

        Raises _TooMuch.
        """
        if todo.purged and self._purge_slice(todo, written) == SLICE:
            raise _TooMuch
        parameters = todo.affecting()
        if parameters is None:
            return {}
        rows = self._connection.execute(
            f"{notices.AFFECTED_SQL} LIMIT {SLICE + 1}", parameters
        ).fetchall()
        if len(rows) > SLICE:
            raise _TooMuch
        return {uri: False for (uri,) in rows}

    def _write_in_slices(self, todo: _Todo) -> Written:
        """Do the purges and what follows from the work, in transactions of their own."""
        written = Written()
        removed = SLICE if todo.purged else 0
        while removed == SLICE:
            done = Written()
            with self._slice():
                removed = self._purge_slice(todo, done)
            written.include(done)
        parameters = todo.affecting()
        if parameters is None:
            return written
        # What the cursor has found is kept beyond the transaction, on the server.
        with self._connection.cursor("affected", withhold=True) as affected:
            with self._slice():
                affected.execute(notices.AFFECTED_SQL, parameters)
            while uris := affected.fetchmany(SLICE):
                done = Written()
                with self._slice():
                    self._agree_on({uri: False for (uri,) in uris}, _Todo(), done)
                written.include(done)
        return written

    @contextmanager
    def _slice(self) -> Iterator[None]:
        """One of several transactions of one piece of work."""
        with self._connection.transaction():
            self._fence.check(self._connection)
            yield
        self._crash_point("slice")
        self._progress()

    def _purge_slice(self, todo: _Todo, written: Written) -> int:
        """Remove some of what purged accounts told; returns how many."""
        removed = self._connection.execute(self._purge, [text_array(list(todo.purged))]).fetchall()
        for (reason,) in removed:
            written.add("removed", reason, 1)
        return len(removed)

    def _agree_on(self, records: dict[str, bool], todo: _Todo, written: Written) -> None:
        """Make notifications agree with these records, and tell of lost verifications."""
        by_collection: dict[str, list[str]] = {}
        for uri in records:
            by_collection.setdefault(_collection(uri), []).append(uri)
        results: list[Cursor[Any]] = []
        with self._connection.pipeline():
            if todo.unverified:
                results.append(self._tell_unverified(todo.unverified.values()))
            for collection, sql in self._agree.items():
                uris = by_collection.get(collection, [])
                for start in range(0, len(uris), SLICE):
                    part = uris[start : start + SLICE]
                    parameters = {"uris": text_array(part)}
                    if collection == notices.POST:
                        parameters["fresh"] = array("boolean", [records[uri] for uri in part])
                    if collection == notices.VERIFICATION:
                        parameters["past"] = array("boolean", [uri in todo.past for uri in part])
                    results.append(self._connection.execute(sql, parameters))
        for result in results:
            for done, reason, amount in result.fetchall():
                written.add(done, reason, amount)

    def _tell_unverified(self, lost: Iterable[Unverified]) -> Cursor[Any]:
        uris, subjects, issuers, times = zip(
            *((each.uri, each.subject, each.issuer, each.time) for each in lost), strict=True
        )
        return self._connection.execute(
            notices.UNVERIFIED_SQL,
            [
                *(text_array(column) for column in (uris, subjects, issuers)),
                array("timestamp", times),
            ],
        )


def write(
    connection: Connection[Any],
    fence: Fence,
    works: Sequence[NotifierWork],
    rows: Sequence[int] = (),
) -> Written:
    """Do work once, on a connection that is made ready for it; see NotificationWriter.write."""
    return NotificationWriter(connection, fence).write(works, rows)
