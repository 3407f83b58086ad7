"""Accounts of a network in memory: their documents, handles, repositories, and servers."""

from typing import NamedTuple

from actors.atproto import cbor, frames
from actors.atproto.events import Commit
from bench.network_account import Account, Write, document
from tests.servers.directory import PlcDirectory
from tests.servers.pds import Pds
from tests.servers.repository import Repository
from tests.virtual.hosts import Host
from tests.virtual.internet import Internet

PROFILE = "app.bsky.actor.profile/self"
POST = "app.bsky.feed.post/3kaaaaaaaaa22"
_WRITTEN = 1_690_000_000_000_000
_TIME = "2023-07-22T00:00:00.000Z"


class Person(NamedTuple):
    """An account: who it is, and where."""

    did: str
    handle: str
    key: str
    pds: str
    host: Host

    @property
    def post(self) -> str:
        """The uri of its one post."""
        return f"at://{self.did}/{POST}"


class People:
    """All accounts, and the directory of their documents."""

    def __init__(self, internet: Internet) -> None:
        self.internet = internet
        self.plc = PlcDirectory()
        self.directory = internet.host(self.plc, "plc.directory")
        self.all: list[Person] = []

    def server(self, name: str, accounts: int, *, sites: bool = False) -> list[Person]:
        """A server with so many accounts.

        `sites`: each handle is a site of its own at the server's address; else a text of the name
        system.
        """
        pds = Pds()
        host = self.internet.host(pds, name)
        return [self._person(pds, host, name, sites=sites) for _ in range(accounts)]

    def on(self, *hosts: Host) -> list[Person]:
        """Who has an account there."""
        return [person for person in self.all if person.host in hosts]

    def _person(self, pds: Pds, host: Host, name: str, *, sites: bool) -> Person:
        index = len(self.all)
        handle = f"u{index}.{name}"
        account = Account(9, index, handle, sign=True)
        made = document(account.did, handle, account.key)
        made["service"][0]["serviceEndpoint"] = f"https://{name}"
        self.plc.documents[account.did] = made
        if sites:
            self.internet.name(host.address, [handle])
        else:
            self.internet.txt(f"_atproto.{handle}", f"did={account.did}")
        pds.add(_repository(account))
        key = made["verificationMethod"][0]["publicKeyMultibase"]
        person = Person(account.did, handle, key, f"https://{name}", host)
        self.all.append(person)
        return person


def _repository(account: Account) -> Repository:
    profile = {"$type": "app.bsky.actor.profile", "displayName": account.handle}
    post = {"$type": "app.bsky.feed.post", "text": account.handle, "createdAt": _TIME}
    writes = [
        Write("create", PROFILE, cbor.encode(profile)),
        Write("create", POST, cbor.encode(post)),
    ]
    event = frames.decode(account.commit(writes, 1, _WRITTEN))
    assert isinstance(event, Commit)
    repository = Repository(account.did, account.handle)
    repository.follow(event.commit, event.blocks)
    return repository
