"""The PDS fetcher as a process, with shards, on a real database, before servers on loopback."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from actors.messages import MESSAGES
from actors.pds_fetcher import FetcherOptions, PdsFetcher
from actors.shard import Shard, ShardSettings
from actors.store.fence import Fence
from actors.store.session import Connection, SessionSettings
from bench.network import Network
from bench.network_account import did_of, document, key_of
from config.loader import load
from engine.metrics import MetricsSnapshot
from engine.topology import Edge, EdgeKind
from tests.servers.client import developing
from tests.servers.pds import Pds
from tests.servers.repository import Repository
from tests.unit.engine_harness import Harness

EPOCH = 7
SHARDS = 2
SEED = 5
POST = "app.bsky.feed.post"
# Makes each failure follow the one before at once.
QUICK = {"retry_min_seconds": 0.05, "retry_max_seconds": 0.05, "patience_seconds": 0.0}


class Stage:
    """Accounts with repositories, what the index knows of them, and the fetcher."""

    def __init__(self, conninfo: str, connection: Connection) -> None:
        self.conninfo = conninfo
        self.connection = connection
        self.pds = Pds()
        connection.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])

    # --- the network

    def accounts(self, users: int = 30, events: int = 800) -> list[Repository]:
        """Accounts of a synthetic network that have posts, on the server."""
        source = Pds()
        source.feed(*Network(SEED, users).events(events))
        found = []
        for index in range(users):
            repository = source.repositories.get(did_of(SEED, index))
            if repository is None or not repository.head or repository.status is not None:
                continue
            if posts_of(repository):
                found.append(self.pds.add(repository))
                self.identify(repository.did, index, self.pds.url)
        return found

    def identify(self, did: str, index: int, pds: str | None, *, looked: bool = True) -> None:
        """Know who an account is."""
        key = document(did, "x.test", key_of(SEED, index))["verificationMethod"][0]
        self.run(
            "INSERT INTO engine_identities (did, plc, pds, signing_key, checked_at, next_check)"
            " VALUES (%s, true, %s, %s, CASE WHEN %s THEN now() END, now() + interval '1 day')"
            " ON CONFLICT (did) DO UPDATE SET pds = excluded.pds,"
            " signing_key = excluded.signing_key",
            *(did, pds, key["publicKeyMultibase"], looked),
        )

    # --- the index

    def run(self, sql: str, *parameters: Any) -> list[Any]:
        cursor = self.connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def out_of_step(self, did: str, rev: str = "2222222222222") -> None:
        self.run("INSERT INTO engine_repos (did, rev, out_of_step) VALUES (%s, %s, true)", did, rev)

    def waits(self, awaited: str, number: int = 1) -> None:
        """An operation waits for a subject, for a minute now."""
        self.run(
            "INSERT INTO engine_pending (uri, awaited, author, kind, created_at)"
            " VALUES (%s, %s, 'did:plc:liker', 'like', now() - interval '1 minute')",
            *(f"at://did:plc:liker/app.bsky.feed.like/{number}", awaited),
        )

    def user(self, did: str) -> None:
        self.run("INSERT INTO users (did, handle) VALUES (%s, 'handle.invalid')", did)

    def backfill(self, *dids: str) -> None:
        for did in dids:
            self.run(
                "INSERT INTO engine_incomplete (kind, key, did, cause, rank)"
                " VALUES ('repo', %s, %s, 'backfill', 3)",
                *(did, did),
            )

    def posts(self, did: str) -> set[str]:
        rows = self.run("SELECT uri FROM posts WHERE author_did = %s", did)
        return {uri for (uri,) in rows}

    def queue(self) -> dict[str, tuple[str, int, str | None]]:
        """State, attempts and reason of what is in the queue, by key."""
        rows = self.run("SELECT key, state, attempts, reason FROM engine_incomplete")
        return {key: (state, attempts, reason) for key, state, attempts, reason in rows}

    def is_settled(self) -> bool:
        """Whether nothing more is to be fetched of those whose server is known; something was."""
        return bool(self.pds.requests) and not any(
            state == "waiting" and reason != "server_unknown"
            for state, _, reason in self.queue().values()
        )

    def is_whole(self, repository: Repository) -> bool:
        """Whether the index is in step with a repository."""
        rows = self.run(
            "SELECT r.rev, r.out_of_step FROM engine_repos r WHERE did = %s"
            " AND NOT EXISTS (SELECT FROM engine_parked k WHERE k.did = r.did)",
            repository.did,
        )
        return rows == [(repository.rev, False)] and self.posts(repository.did) == posts_of(
            repository
        )

    # --- the fetcher

    @contextmanager
    def fetcher(
        self,
        crash_points: str = "",
        *,
        network: dict[str, Any] | None = None,
        wait: bool = True,
        relay: str = "",
        **changes: Any,
    ) -> Iterator[Harness]:
        """The fetcher with its shards; they end with the block."""
        edges = [
            Edge("pds_fetcher", f"shard-{i}", EdgeKind.TELL, messages=64) for i in range(SHARDS)
        ]
        edges += [
            Edge(f"shard-{i}", to, EdgeKind.OFFER, messages=64)
            for i in range(SHARDS)
            for to in ("user_gate", "pending", "notifier")
        ]
        session = SessionSettings(self.conninfo)
        shard = ShardSettings(
            *(session, 500, 1 << 20, 10.0, 1000, 100.0, False, SHARDS),
            ("user_gate", "pending", "notifier"),
        )
        options = FetcherOptions(
            session,
            developing(tries=1, requests_per_second=1000.0, **(network or {})),
            msgspec.structs.replace(load().fetcher, **{**QUICK, **changes}),
            SHARDS,
            0.05,
            relay=relay,
        )
        with Harness(edges, MESSAGES, crash_points) as harness:
            for i in range(SHARDS):
                harness.start(f"shard-{i}", Shard, shard)
            if wait:
                harness.start("pds_fetcher", PdsFetcher, options)
            else:
                harness.spawn("pds_fetcher", PdsFetcher, options)
            yield harness

    def fence(self) -> Fence:
        """The right to write of nobody who runs."""
        fence = Fence("test", EPOCH, 1)
        fence.claim(self.connection)
        return fence


def posts_of(repository: Repository) -> set[str]:
    return {f"at://{repository.did}/{path}" for path in repository.records() if POST in path}


def post_of(repository: Repository) -> str:
    return min(posts_of(repository))


def metrics(harness: Harness) -> MetricsSnapshot:
    return harness.metrics("pds_fetcher")


def outcome(harness: Harness, kind: str, of: str) -> float:
    return metrics(harness).value("fetched_total", kind=kind, outcome=of)


def asked(servers: Sequence[Pds], method: str) -> list[dict[str, str]]:
    """What the servers were asked for by a method."""
    path = f"/xrpc/com.atproto.sync.{method}"
    return [
        request.query for server in servers for request in server.requests if request.path == path
    ]
