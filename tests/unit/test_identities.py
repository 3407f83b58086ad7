"""The table of identities: when rows are made, when they are due, and what results change."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from actors.atproto import frames
from actors.store import identities
from actors.store.fence import Fence, Fenced
from actors.store.identities import ACTIVE, CHANGED, INVALID, OTHER, Due, Found
from actors.store.session import Connection
from actors.store.users import create_users
from bench.network_account import text_of
from tests.author import START, Author, account_event
from tests.writing import begin_run, claimed, decoded, make_index, session, writer

RESOLVER = "resolver"
ANN, BEN, CAT = (f"did:plc:{letter * 24}" for letter in "abc")
WEB = "did:web:dora.example.com"
DAY = 86_400.0


class Index:
    """A database with its resolver's connection."""

    def __init__(self, conninfo: str, epoch: int, connection: Connection, fence: Fence) -> None:
        self.conninfo = conninfo
        self.epoch = epoch
        self.connection = connection
        self.fence = fence

    def users(self, *dids: str, active: tuple[str, ...] = ()) -> None:
        create_users(self.connection, self.fence, dids, (), active)

    def due(self, plc: bool = True, **more: Any) -> list[str]:
        return [
            each.did
            for rank in identities.RANKS
            for each in identities.due(self.connection, plc, rank, 100, **more)
        ]

    def look(self, did: str) -> Due:
        for rank in identities.RANKS:
            for each in identities.due(self.connection, did.startswith("did:plc:"), rank, 100):
                if each.did == did:
                    return each
        raise AssertionError(f"{did} is not due")

    def write(self, *found: Found) -> identities.Written:
        return identities.write(self.connection, self.fence, found)

    def handle(self, did: str) -> str:
        return str(self.one("SELECT handle FROM users WHERE did = %s", did)[0])

    def one(self, sql: str, *values: Any) -> tuple[Any, ...]:
        row = self.connection.execute(sql.encode(), values).fetchone()
        assert row is not None
        return tuple(row)

    def do(self, sql: str, *values: Any) -> None:
        self.connection.execute(sql.encode(), values)


@pytest.fixture
def index(database: str) -> Iterator[Index]:
    epoch = begin_run(make_index(database))
    with session(database, RESOLVER) as connection:
        yield Index(database, epoch, connection, claimed(connection, RESOLVER, epoch))


def valid(due: Due, handle: str, **more: Any) -> Found:
    return Found(due, DAY, None, True, handle, True, handle, good=True, **more)


def invalid(due: Due, problem: str = "it leads nowhere") -> Found:
    return Found(due, 3600.0, problem, True, None, True, "x.example.com")


def silent(due: Due, seconds: float = 120.0) -> Found:
    return Found(due, seconds, "no answer", False)


# --- rows and ranks ------------------------------------------------------------------------------


def test_a_user_is_due_as_soon_as_there_is_one(index: Index) -> None:
    index.users(ANN, WEB)
    assert index.due() == [ANN]
    assert index.due(plc=False) == [WEB]


def test_who_writes_comes_before_who_is_spoken_of(index: Index) -> None:
    index.users(ANN, BEN, active=(BEN,))
    assert [index.look(did).rank for did in (ANN, BEN)] == [OTHER, ACTIVE]
    assert index.due() == [BEN, ANN]


def test_those_in_hand_are_left_out(index: Index) -> None:
    index.users(ANN, BEN, CAT)
    assert index.due(but=[ANN, CAT]) == [BEN]


def test_users_from_before_are_filled_in_slices_and_those_at_work_come_first(index: Index) -> None:
    for did in (ANN, BEN, CAT):
        index.do("INSERT INTO users (did, handle) VALUES (%s, 'old.example.com')", did)
    index.users(ANN)
    index.do("INSERT INTO engine_repos (did, rev) VALUES (%s, '3zzzzzzzzzz2z')", CAT)
    after, made = identities.fill(index.connection, index.fence, "", 2, "3mzzzzzzzzz2z")
    assert (after, made) == (BEN, 1)
    after, made = identities.fill(index.connection, index.fence, BEN, 2, "3mzzzzzzzzz2z")
    assert (after, made) == (CAT, 1)
    assert identities.fill(index.connection, index.fence, CAT, 2, "3mzzzzzzzzz2z") == (None, 0)
    assert index.due() == [CAT, ANN, BEN]
    assert index.look(BEN).held == "old.example.com"


def test_the_backlog_is_counted_up_to_a_bound(index: Index) -> None:
    index.users(ANN, BEN, CAT)
    index.do(
        "UPDATE engine_identities SET next_check = now() - interval '1 hour' WHERE did = %s", BEN
    )
    number, seconds = identities.backlog(index.connection, True, OTHER, 2)
    assert number == 2
    assert 3590 < seconds < 3700
    assert identities.backlog(index.connection, True, CHANGED, 2) == (0, 0.0)


def test_no_statement_scans_a_table_even_one_that_was_planned_while_it_was_empty(
    index: Index,
) -> None:
    identities.prepare(index.connection)
    index.do("SET plan_cache_mode = force_generic_plan")
    for name, parameters in {
        "_DUE_SQL": 4,
        "_LOCK_SQL": 2,
        "_HANDLES_SQL": 2,
        "_LOSE_SQL": 1,
        "_WRITE_SQL": 14,
        "_FILL_SQL": 3,
        "_BACKLOG_SQL": 5,
        "CHANGED_SQL": 1,
    }.items():
        text = getattr(identities, name)
        for number in range(1, parameters + 1):
            text = re.sub("%[sb]", f"${number}", text, count=1)
        index.do(f"PREPARE asked AS {text}")
        nulls = ", ".join(["NULL"] * parameters)
        lines = index.connection.execute(f"EXPLAIN EXECUTE asked ({nulls})".encode()).fetchall()
        plan = "\n".join(line for (line,) in lines)
        index.do("DEALLOCATE asked")
        for whole in ("Seq Scan", "Hash Join", "Merge"):
            assert whole not in plan, f"{name}: {plan}"


# --- results -------------------------------------------------------------------------------------


def test_a_verified_handle_is_shown_and_looked_at_again_a_day_later(index: Index) -> None:
    index.users(ANN)
    found = valid(
        index.look(ANN), "ann.example.com", pds="https://p", signing_key="zQ1", label_key="zQ2"
    )
    assert index.write(found) == (1, ())
    assert index.handle(ANN) == "ann.example.com"
    assert index.due() == []
    row = index.one(
        "SELECT handle, failures, rank, problem, round(extract(epoch FROM next_check - now())),"
        " checked_at IS NOT NULL FROM engine_identities"
    )
    assert row == ("ann.example.com", 0, OTHER, None, 86400, True)
    assert identities.signing_keys(index.connection, [ANN, BEN]) == {ANN: "zQ1"}
    assert identities.label_keys(index.connection, [ANN]) == {ANN: "zQ2"}
    assert identities.pds_of(index.connection, [ANN]) == {ANN: "https://p"}
    assert index.write(found).changed == 0


def test_silence_changes_no_handle_and_nothing_that_is_known(index: Index) -> None:
    index.users(ANN)
    index.write(valid(index.look(ANN), "ann.example.com", pds="https://p"))
    index.do("UPDATE engine_identities SET next_check = now() - interval '1 s'")
    for failures in range(3):
        looked = index.look(ANN)
        assert looked.failures == failures
        assert index.write(silent(looked)).changed == 0
        assert index.due() == []
        index.do("UPDATE engine_identities SET next_check = now() - interval '1 s'")
    assert index.handle(ANN) == "ann.example.com"
    assert identities.pds_of(index.connection, [ANN]) == {ANN: "https://p"}


def test_a_check_that_failed_takes_the_handle_away(index: Index) -> None:
    index.users(ANN)
    index.write(valid(index.look(ANN), "ann.example.com"))
    index.do("UPDATE engine_identities SET next_check = now()")
    assert index.write(invalid(index.look(ANN))).changed == 1
    assert index.handle(ANN) == INVALID
    assert index.one("SELECT handle, problem FROM engine_identities") == (None, "it leads nowhere")


def test_the_account_verified_last_has_the_handle_and_the_other_is_looked_at_again(
    index: Index,
) -> None:
    index.users(ANN, BEN)
    index.write(valid(index.look(ANN), "one.example.com"))
    index.do("UPDATE engine_identities SET checked_at = now() - interval '1 h' WHERE did = %s", ANN)
    assert index.write(valid(index.look(BEN), "one.example.com")) == (2, (ANN,))
    assert (index.handle(ANN), index.handle(BEN)) == (INVALID, "one.example.com")
    assert index.due() == [ANN]
    assert index.look(ANN).rank == CHANGED


def test_two_that_take_a_handle_from_each_other_wait_a_while_each_time(index: Index) -> None:
    index.users(ANN, BEN)
    index.write(valid(index.look(ANN), "one.example.com"))
    index.write(valid(index.look(BEN), "one.example.com"))
    assert index.due() == []
    left = index.one(
        "SELECT extract(epoch FROM next_check - now())::float8 FROM engine_identities"
        " WHERE did = %s",
        ANN,
    )[0]
    assert 50 < left <= identities.MOVED_SECONDS


def test_of_two_in_one_batch_the_later_has_the_handle(index: Index) -> None:
    index.users(ANN, BEN)
    ann, ben = index.look(ANN), index.look(BEN)
    index.write(valid(ben, "one.example.com"), valid(ann, "one.example.com"))
    assert (index.handle(ANN), index.handle(BEN)) == ("one.example.com", INVALID)


def test_two_accounts_can_exchange_their_handles_in_one_batch(index: Index) -> None:
    index.users(ANN, BEN)
    ann, ben = index.look(ANN), index.look(BEN)
    index.write(valid(ann, "a.example.com"), valid(ben, "b.example.com"))
    written = index.write(valid(ann, "b.example.com"), valid(ben, "a.example.com"))
    assert (index.handle(ANN), index.handle(BEN)) == ("b.example.com", "a.example.com")
    assert written == (2, ())


def test_of_a_user_who_forbids_it_no_handle_is_stored(index: Index) -> None:
    index.users(ANN, BEN)
    index.write(valid(index.look(ANN), "ann.example.com"))
    index.do(
        "INSERT INTO user_settings (user_did, data_collection_forbidden)"
        " VALUES (%s, true), (%s, true)",
        ANN,
        BEN,
    )
    index.write(valid(index.look(BEN), "ben.example.com", pds="https://p", signing_key="zKey"))
    assert index.handle(BEN) == INVALID
    assert index.one(
        "SELECT handle, claimed, pds, signing_key FROM engine_identities WHERE did = %s", BEN
    ) == (None, None, "https://p", "zKey")
    index.do("UPDATE engine_identities SET next_check = now()")
    index.write(valid(index.look(ANN), "ann.example.com"))
    assert index.handle(ANN) == "ann.example.com"
    index.do("UPDATE engine_identities SET next_check = now()")
    index.write(valid(index.look(ANN), "other.example.com"))
    assert index.handle(ANN) == INVALID
    assert "example.com" not in str(index.one("SELECT e FROM engine_identities e LIMIT 1"))


def test_of_a_user_who_is_forgotten_no_handle_is_left(index: Index) -> None:
    index.users(ANN)
    index.write(valid(index.look(ANN), "ann.example.com"))
    with index.connection.transaction():
        identities.forget(index.connection, ANN)
    assert "example.com" not in str(index.one("SELECT e FROM engine_identities e"))


def test_a_resolver_that_was_replaced_writes_nothing(index: Index) -> None:
    index.users(ANN)
    looked = index.look(ANN)
    claimed(index.connection, RESOLVER, index.epoch, 2)
    with pytest.raises(Fenced):
        index.write(valid(looked, "ann.example.com"))
    assert index.handle(ANN) == INVALID


# --- events --------------------------------------------------------------------------------------


def identity_event(did: str, seq: int) -> bytes:
    time = text_of(START + seq * 1_000_000)
    body = {"seq": seq, "did": did, "time": time, "handle": "told.example.com"}
    return frames.encode("#identity", body)


def apply(index: Index, *events: bytes) -> None:
    with writer(index.conninfo, index.epoch) as writing:
        writing.apply(decoded(events).changes)


def test_an_event_makes_a_known_identity_due_before_all_others(index: Index) -> None:
    author = Author(1)
    index.users(author.did, BEN, active=(BEN,))
    index.write(valid(index.look(author.did), "ann.example.com"))
    apply(index, identity_event(author.did, 1))
    assert index.due() == [author.did, BEN]
    assert index.look(author.did).rank == CHANGED
    # Never a handle from the event itself.
    assert index.handle(author.did) == "ann.example.com"


def test_an_event_that_comes_while_the_identity_is_looked_at_is_not_lost(index: Index) -> None:
    author = Author(1)
    index.users(author.did)
    looked = index.look(author.did)
    apply(index, identity_event(author.did, 1))
    index.write(valid(looked, "ann.example.com"))
    assert index.due() == [author.did]
    assert index.look(author.did).rank == CHANGED
    index.write(valid(index.look(author.did), "new.example.com"))
    assert index.due() == []
    assert index.handle(author.did) == "new.example.com"


def test_an_event_that_is_replayed_asks_nobody_again(index: Index) -> None:
    author = Author(1)
    index.users(author.did)
    event = identity_event(author.did, 1)
    apply(index, event)
    index.write(valid(index.look(author.did), "new.example.com"))
    apply(index, event)
    assert index.due() == []


def test_an_event_about_an_account_without_a_user_asks_nobody(index: Index) -> None:
    apply(index, identity_event(Author(1).did, 1))
    assert index.due() == []


def test_an_account_whose_status_makes_its_user_is_due(index: Index) -> None:
    author = Author(1)
    apply(index, account_event(author.did, 1, "suspended"))
    assert index.due() == [author.did]


def test_who_finds_a_bad_signature_can_have_the_identity_looked_at_again(index: Index) -> None:
    index.users(ANN)
    index.write(valid(index.look(ANN), "ann.example.com"))
    identities.recheck(index.connection, [ANN, ANN])
    assert index.due() == [ANN]


def test_a_look_begun_before_another_was_asked_for_is_no_answer_to_it(index: Index) -> None:
    index.users(ANN)
    begun = index.look(ANN)
    identities.recheck(index.connection, [ANN])
    index.write(valid(begun, "ann.example.com", signing_key="old"))
    assert index.one("SELECT checked_at FROM engine_identities") == (None,)
    again = index.look(ANN)
    assert again.rank == CHANGED
    index.write(valid(again, "ann.example.com", signing_key="new"))
    key, looked = index.one("SELECT signing_key, checked_at IS NOT NULL FROM engine_identities")
    assert (key, looked) == ("new", True)


def test_who_was_looked_up_before_it_has_a_user_can_be_looked_at_again(index: Index) -> None:
    index.do(
        "INSERT INTO engine_identities (did, plc, next_check) VALUES (%s, true, 'infinity')", ANN
    )
    assert index.due() == []
    identities.recheck(index.connection, [ANN])
    assert index.look(ANN).rank == CHANGED
