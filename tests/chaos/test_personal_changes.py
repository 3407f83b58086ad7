"""A personal index while follows come and go, and strangers are spoken of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.network_account import Write, document
from bench.relay_process import RelayProcess, relay_process
from tests.author import START, Author, account_event, ref
from tests.chaos.fetching_run import ON, stop
from tests.program import program, wait_until
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.servers.pds import Pds

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
FOLLOW = "app.bsky.graph.follow"
UNHEARD = "did:plc:nobodyspeaksofthisone234"


class Person(Author):
    """An account that signs what it writes."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._sign = True


class Town:
    """Three people, the server of their repositories, and a relay that tells what they do."""

    def __init__(self, database: str, relay: RelayProcess, pds: Pds) -> None:
        self.relay = relay
        self.pds = pds
        self.me, self.friend, self.stranger = (Person(index) for index in range(3))
        self._database = database
        self._seq = 0

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for each in (self.me, self.friend, self.stranger):
            made = document(each.did, each.handle, each.key)
            made["service"][0]["serviceEndpoint"] = self.pds.url
            yield each.did, made

    def write(self, who: Person, collection: str, *, told: bool = True, **fields: Any) -> str:
        """Have somebody write a record; returns its uri."""
        path = f"{collection}/{who.next_rkey(START + self._seq * 1_000_000)}"
        self._commit(who, who.put(path, **fields), told=told)
        return who.uri(path)

    def take_back(self, who: Person, uri: str) -> None:
        self._commit(who, Write("delete", uri.removeprefix(who.uri("")), None), told=True)

    def delete_account(self, did: str) -> None:
        self._seq += 1
        self._tell(account_event(did, self._seq, "deleted"))

    def _commit(self, who: Person, write: Write, *, told: bool) -> None:
        self._seq += 1
        frame = who.commit([write], self._seq, START + self._seq * 1_000_000)
        if told:
            self._tell(frame)
        else:
            self.pds.feed(frame)

    def _tell(self, frame: bytes) -> None:
        self.pds.feed(frame)
        self.relay.publish([frame])

    # --- the index

    def rows(self, sql: str, *values: str) -> list[str]:
        try:
            with psycopg.connect(self._database) as connection:
                return [row for (row,) in connection.execute(sql.encode(), values).fetchall()]
        except psycopg.errors.UndefinedTable:
            return []

    def has(self, uri: str) -> bool:
        return self.rows("SELECT uri FROM posts WHERE uri = %s", uri) == [uri]

    def is_whole(self, who: Person) -> bool:
        sql = "SELECT state FROM engine_incomplete WHERE kind = 'repo' AND key = %s"
        return self.rows(sql, who.did) == ["done"]

    def is_of(self, who: Person) -> bool:
        return bool(self.rows("SELECT did FROM engine_personal WHERE did = %s", who.did))


@pytest.fixture
def town(database: str) -> Iterator[Town]:
    with relay_process() as relay, Pds() as pds:
        yield Town(database, relay, pds)


@pytest.fixture
def environment(town: Town) -> Iterator[dict[str, str]]:
    with DnsServer() as dns, PlcDirectory(town.documents()) as plc:
        yield {
            **ON,
            "SKYSHARD_FETCHER__WHOLE_ACCOUNTS": "false",
            "SKYSHARD_NETWORK__PLC_URL": plc.url,
            "SKYSHARD_NETWORK__NAMESERVERS": dns.nameserver,
            "SKYSHARD_PERSONAL__ACCOUNTS": town.me.did,
        }


def test_who_is_followed_is_indexed_from_the_beginning_and_as_long_as_that_holds(
    database: str, town: Town, environment: dict[str, str], tmp_path: Path
) -> None:
    me, friend, stranger = town.me, town.friend, town.stranger
    with program(
        *(tmp_path, "--source", town.relay.url, "--from-start"),
        *("--database-url", database, "--shards", "2"),
        environment=environment,
    ) as running:

        def comes(uri: str) -> None:
            wait_until(lambda: town.has(uri), uri, running)

        before = [town.write(friend, POST, told=False, text=f"before {n}") for n in range(3)]
        mine = town.write(me, POST, text="here I am")
        comes(mine)
        follow = town.write(me, FOLLOW, subject=friend.did)
        for uri in before:
            comes(uri)
        unheard = town.write(stranger, POST, text="to nobody")
        liked = town.write(stranger, POST, text="to somebody")
        comes(town.write(friend, POST, text="live"))
        assert not town.has(unheard)
        assert not town.has(liked)
        # What ours speak of is fetched by itself.
        town.write(me, LIKE, subject=ref(liked))
        comes(liked)
        assert not town.has(unheard)
        assert not town.is_of(stranger)
        # Its author, who is nobody here, goes all the same; of others nothing is kept.
        town.delete_account(UNHEARD)
        town.delete_account(stranger.did)
        wait_until(lambda: not town.has(liked), "the deletion of a stranger", running)
        assert town.rows("SELECT did FROM engine_accounts") == [stranger.did]
        # An unfollow ends it, and what is there stays.
        town.take_back(me, follow)
        wait_until(lambda: not town.is_of(friend), "the end of a follow", running)
        missed = town.write(friend, POST, text="nobody listens")
        comes(town.write(me, POST, text="still here"))
        assert not town.has(missed)
        assert all(map(town.has, before))
        # And what was missed comes with the next one.
        town.write(me, FOLLOW, subject=friend.did)
        comes(missed)
        comes(town.write(friend, POST, text="live again"))
        stop(running)
    assert town.rows("SELECT reason FROM engine_drops") == []


def test_accounts_that_are_named_later_come_and_those_no_longer_named_go(
    database: str, town: Town, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments: tuple[str, ...] = ("--database-url", database, "--shards", "1", "--from-start")
    for name, who, other in (("first", town.me, town.friend), ("second", town.friend, town.me)):
        mine = town.write(who, POST, text="mine")
        theirs = town.write(other, POST, text="theirs")
        with program(
            tmp_path,
            *("--source", town.relay.url),
            *arguments,
            environment={**environment, "SKYSHARD_PERSONAL__ACCOUNTS": who.did},
            name=name,
        ) as running:
            # As long as it is being fetched, an account stays.
            wait_until(lambda who=who: town.is_whole(who), "the repository", running)  # type: ignore[misc]  # a default binds it
            wait_until(lambda mine=mine: town.has(mine), "a post", running)  # type: ignore[misc]  # a default binds it
            assert town.rows("SELECT did FROM engine_personal") == [who.did]
            assert not town.has(theirs)
            stop(running)
        arguments = arguments[:-1]
