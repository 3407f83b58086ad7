"""The resolver and the fetcher with a shard, PostgreSQL, and a network in memory, for hours."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import msgspec
import pytest
import structlog

from actors import pds_fetcher, resolver
from actors.messages import MESSAGES
from actors.pds_fetcher import FetcherOptions, PdsFetcher
from actors.resolver import Resolver, ResolverOptions
from actors.shard import Shard, ShardSettings
from actors.store.session import SessionSettings, open_session
from config.loader import load
from engine import exchange, inbox
from engine.actor import Actor, Delivery
from engine.child import ChildSpec, Restart
from engine.message import Message
from engine.simulated import VirtualClock
from engine.topology import Edge, EdgeKind, Group, Topology
from tests.servers.client import network
from tests.virtual.bearing import last_attempt
from tests.virtual.database import on_virtual_time
from tests.virtual.internet import Internet
from tests.virtual.loop import Hours, SteppedIo
from tests.virtual.people import People, Person
from tests.writing import make_index

EPOCH = 1
LOOK_SECONDS = 10.0
"""How often tables are looked at when nothing happens; in production it is a second."""
REPORT_SECONDS = 60.0
QUIET_SECONDS = 30.0
"""No request takes so long."""
_OTHERS = ("user_gate", "pending", "notifier")


class Deaf(Actor):
    """An actor that others tell something, and that does nothing."""

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        return None


class Stage:
    """A context manager; nothing runs before `start`."""

    def __init__(self, conninfo: str, patch: pytest.MonkeyPatch) -> None:
        self._hours: Hours | None = None
        on_virtual_time(conninfo, patch, self.wall)
        make_index(conninfo)
        self._session = SessionSettings(conninfo)
        self.connection = open_session(self._session, "test")
        self.run("INSERT INTO engine_epoch VALUES (1, %s, 'test')", EPOCH)
        self.internet = Internet(self.now, self.wall)
        self.internet.take_over(patch)
        self.people = People(self.internet)
        self.network = network()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        patch.setattr(resolver, "IoThread", SteppedIo)
        patch.setattr(pds_fetcher, "IoThread", SteppedIo)
        # Nobody watches over the actors, and of their figures only the last ones are read.
        patch.setattr(exchange, "_REPORT_SECONDS", REPORT_SECONDS)
        patch.setattr(inbox, "PROGRESS_SECONDS", REPORT_SECONDS)
        patch.setattr(resolver, "POLL_SECONDS", LOOK_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._hours is not None:
            try:
                self._hours.end()
            finally:
                self._hours.close()
        self.connection.close()

    # --- time

    def now(self) -> float:
        """Seconds since the start."""
        return 0.0 if self._hours is None else self._hours.time()

    def wall(self) -> float:
        """The same in Unix seconds."""
        return VirtualClock.EPOCH + self.now()

    @property
    def hours(self) -> Hours:
        assert self._hours is not None, "start it first"
        return self._hours

    def start(self, *, without: str = "", **changes: Mapping[str, Any]) -> None:
        """Begin, `without` an actor; `changes` are of sections, as `fetcher={"attempts": 3}`."""
        given = load()
        settings = {
            name: msgspec.structs.replace(getattr(given, name), **changes.get(name, {}))
            for name in ("resolver", "fetcher")
        }
        shard = ShardSettings(*(self._session, 500, 1 << 20, 10.0, 1000, 100.0, False, 1), _OTHERS)
        children = [ChildSpec(name, Deaf) for name in _OTHERS]
        children.append(ChildSpec("shard-0", Shard, shard))
        edges = [Edge("shard-0", to, EdgeKind.OFFER) for to in _OTHERS]
        if without != "resolver":
            of_resolver = ResolverOptions(self._session, self.network, settings["resolver"])
            children.append(ChildSpec("resolver", Resolver, of_resolver))
        if without != "fetcher":
            of_fetcher = FetcherOptions(
                self._session, self.network, settings["fetcher"], 1, LOOK_SECONDS
            )
            children.append(ChildSpec("pds_fetcher", PdsFetcher, of_fetcher))
            edges.append(Edge("pds_fetcher", "shard-0", EdgeKind.TELL))
        groups = tuple(
            Group(child.name, (replace(child, restart=Restart.TRANSIENT),)) for child in children
        )
        self._hours = Hours(Topology(groups, tuple(edges), MESSAGES), seed=1)

    def stop(self) -> None:
        """End the actors when nothing is under way, so that all was counted that was asked."""
        hosts = self.internet.hosts.values()
        self.hours.run(lambda: self.now() - max(map(last_attempt, hosts)) > QUIET_SECONDS)
        self.hours.end()
        assert self.hours.faults_seen == []

    # --- what the index knows

    def run(self, sql: str, *parameters: Any) -> list[Any]:
        """Do something in the database, at this moment."""
        cursor = self.connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def user(self, *people: Person) -> None:
        """These were spoken of, in this order; nothing else is known."""
        for person in people:
            self.run("INSERT INTO users (did, handle) VALUES (%s, 'handle.invalid')", person.did)
            self.run(
                "INSERT INTO engine_identities (did, plc, rank) VALUES (%s, true, 1)", person.did
            )

    def known(self, *people: Person, due_in: float = 86_400.0) -> None:
        """These were verified, and are looked at again in so many seconds."""
        self.user(*people)
        for person in people:
            self.run("UPDATE users SET handle = %s WHERE did = %s", person.handle, person.did)
            self.run(
                "UPDATE engine_identities SET handle = %s, claimed = %s, pds = %s,"
                " signing_key = %s, checked_at = now(), rank = 2,"
                " next_check = now() + %s * interval '1 second' WHERE did = %s",
                *(person.handle, person.handle, person.pds, person.key, due_in, person.did),
            )

    def out_of_step(self, *people: Person) -> None:
        """Their repositories are to be fetched."""
        for person in people:
            self.run(
                "INSERT INTO engine_repos (did, rev, out_of_step)"
                " VALUES (%s, '2222222222222', true)",
                person.did,
            )

    def awaited(self, *people: Person) -> None:
        """Somebody likes their post, which is not there."""
        for number, person in enumerate(people):
            self.run(
                "INSERT INTO engine_pending (uri, awaited, author, kind, created_at)"
                " VALUES (%s, %s, 'did:plc:liker', 'like', now() - interval '1 minute')",
                *(f"at://did:plc:liker/app.bsky.feed.like/{number}", person.post),
            )

    def handles(self) -> dict[str, str]:
        """What accounts are shown with."""
        return dict(self.run("SELECT did, handle FROM users"))

    def shown(self, *people: Person) -> int:
        """How many of these are shown with their own handle."""
        handles = self.handles()
        return sum(handles.get(person.did) == person.handle for person in people)

    def profiles(self) -> list[str]:
        """Whose profile is there."""
        rows = self.run("SELECT did FROM users WHERE profile_record IS NOT NULL")
        return [did for (did,) in rows]

    def figure(self, actor: str, name: str, **labels: str) -> float:
        """What an actor has counted; complete after `stop`."""
        return self.hours.figures[actor].value(name, **labels)

    def queue(self) -> dict[tuple[str, str], tuple[str, int, str | None]]:
        """State, attempts and reason of what is to be fetched, by kind and key."""
        rows = self.run("SELECT kind, key, state, attempts, reason FROM engine_incomplete")
        return {(kind, key): tuple(rest) for kind, key, *rest in rows}
