"""The system as data: who runs, in which order, and who may talk to whom. READ THIS FIRST.

Sinks start first and the source last, so that nothing is ever sent to nobody; stopping is the
reverse. To add an actor: its file, its messages, a group here, and the edges it talks over.

    ingest ──Frames──> shard ──EnsureUsers (ask)──────────> user_gate
                        │└─────OutboxWork, SweepOutbox──────────┘
                        │├─────OutboxWork, SweepOutbox─────> notifier
                        │└─────OutboxWork, SweepOutbox─────> pending
                        │└─────Settle──────────────────────────┘
                        └──────FetchedRecord, ResyncBegins, RepoSlice, ResyncEnds── pds_fetcher

The monitor, the label client and the resolver speak to nobody here. With a capture there is neither
resolver nor fetcher.
"""

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from actors.ingest import Ingest, IngestSetup
from actors.label_client import LabelClient, LabelClientSettings
from actors.labeler_reader import ReaderSettings
from actors.lexicons import Validation
from actors.messages import MESSAGES
from actors.monitor import Monitor, MonitorOptions
from actors.notifier import Notifier, NotifierSettings
from actors.pds_fetcher import FetcherOptions, PdsFetcher
from actors.pending import Pending, PendingSettings
from actors.resolver import Resolver, ResolverOptions
from actors.shard import Shard, ShardSettings
from actors.store.database import Database, check_database, choose_database
from actors.store.dead_letters import DeadLetters
from actors.store.mendable import mendable
from actors.store.ownership import Ownership
from actors.store.probe import probe
from actors.store.session import SessionSettings
from actors.upkeep import Bounds
from actors.user_gate import UserGate, UserGateSettings
from config.settings import Settings
from config.source import asked_at
from engine.actor import Actor
from engine.address import member
from engine.child import ChildSpec, ServiceSpec
from engine.restarts import Backoff
from engine.topology import Edge, EdgeKind, Group, Topology

log = structlog.get_logger("supervisor")

MIB: Final = 1024 * 1024
# Work that is offered and not yet taken; what comes beyond is found in the outbox later.
OFFER_MESSAGES: Final = 256

EDGES: Final = (
    # ingest bounds its windows in frames and bytes itself; the edge's own bound never bites first.
    Edge("ingest", "shard", EdgeKind.TELL, messages=65_536, bytes=1024 * MIB),
    Edge("shard", "user_gate", EdgeKind.ASK, messages=4, bytes=4 * MIB),
    Edge("shard", "user_gate", EdgeKind.OFFER, messages=OFFER_MESSAGES, bytes=16 * MIB),
    Edge("shard", "notifier", EdgeKind.OFFER, messages=OFFER_MESSAGES, bytes=16 * MIB),
    Edge("shard", "pending", EdgeKind.OFFER, messages=OFFER_MESSAGES, bytes=16 * MIB),
    # Against the flow: it is only ever offered, so that it never waits; and kept until it is acked.
    Edge("pending", "shard", EdgeKind.TELL, messages=64, bytes=16 * MIB),
    # Offered too: what was fetched waits at the fetcher, which asks for no more meanwhile.
    Edge("pds_fetcher", "shard", EdgeKind.TELL, messages=64, bytes=16 * MIB),
)


def shard_count(settings: Settings) -> int:
    """How many shards run: the setting, or one for each core that this process may use."""
    return settings.run.shards or len(os.sched_getaffinity(0))


def build(settings: Settings, run_dir: Path, logging: Callable[[str], None]) -> Topology:
    """Return the topology of a run.

    Nothing is started or connected to yet. `run_dir` is the run's private folder, `logging` is
    called in every process with its actor's name. Raises DatabaseRefused for an impossible address
    of a database.
    """
    data_dir = Path(settings.run.data_dir).expanduser() if settings.run.data_dir else None
    database = choose_database(settings.run.database_url, data_dir, run_dir, settings.embedded)
    session = SessionSettings(
        conninfo=database.conninfo,
        connect_seconds=settings.database.connect_seconds,
        statement_timeout_seconds=settings.database.statement_timeout_seconds,
        lock_timeout_seconds=settings.database.lock_timeout_seconds,
        outage_seconds=settings.database.outage_seconds,
    )
    ownership = Ownership(session, f"process {os.getpid()} on {socket.gethostname()}")
    return Topology(
        groups=_groups(settings, database, session),
        edges=tuple(edge for edge in EDGES if edge.sender != "pds_fetcher" or _fetches(settings)),
        messages=MESSAGES,
        dead_letters=DeadLetters(session),
        logging=logging,
        epoch=partial(_begin, settings, database, ownership),
        # Before the embedded server stops: what holds on to it then calls that an outage.
        closing=ownership.close,
    )


def _groups(settings: Settings, database: Database, session: SessionSettings) -> tuple[Group, ...]:
    """Return the groups in start order."""
    supervisor = settings.supervisor
    backoff = Backoff(supervisor.backoff_min_seconds, supervisor.backoff_max_seconds)
    shards = shard_count(settings)
    personal = bool(settings.personal.parsed_accounts())

    def group(name: str, *children: ChildSpec | ServiceSpec) -> Group:
        return Group(
            name,
            children,
            intensity=supervisor.intensity * max(1, len(children)),
            period=supervisor.period_seconds,
            backoff=backoff,
        )

    def child(
        name: str,
        actor: type[Actor],
        of: object,
        *,
        status: bool = False,
    ) -> ChildSpec:
        return ChildSpec(
            name,
            actor,
            of,
            stall_seconds=supervisor.progress_seconds,
            # An actor that starts may have to wait for a database in recovery.
            start_seconds=settings.database.outage_seconds,
            drain_seconds=supervisor.drain_seconds,
            wants_status=status,
        )

    shard = ShardSettings(
        session,
        settings.shard.batch_commits,
        settings.shard.batch_bytes,
        settings.shard.batch_linger_ms,
        settings.shard.user_cache,
        settings.shard.gate_timeout_ms,
        settings.index.search_vector,
        shards,
        tuple(edge.receiver for edge in EDGES if edge.kind is EdgeKind.OFFER),
        Validation(
            settings.lexicon.mode,
            Path(settings.lexicon.folder).expanduser() if settings.lexicon.folder else None,
        ),
        settings.index.kept_drops,
        settings.verify.mode,
        settings.shard.parked_bytes,
        _fetches(settings) and settings.fetcher.repos,
        personal,
    )
    gate = UserGateSettings(
        session,
        settings.user_gate.max_concurrent_user_creations,
        settings.user_gate.batch_users,
        settings.user_gate.known_cache,
    )
    waiting = settings.pending
    pending = PendingSettings(
        session, shards, Bounds(waiting.ttl_seconds, waiting.max_rows, waiting.max_bytes)
    )
    labels = LabelClientSettings(
        session,
        settings.network,
        settings.labels.parsed_labelers(),
        settings.labels.discover,
        settings.labels.max_labelers,
        settings.labels.forward_url,
        ReaderSettings(
            Backoff(settings.labels.reconnect_min_seconds, settings.labels.reconnect_max_seconds),
            settings.labels.stall_seconds,
            settings.labels.max_frame_bytes,
        ),
    )
    monitor = MonitorOptions(
        settings.monitor.host,
        settings.monitor.port,
        settings.monitor.ready_lag_seconds,
        supervisor.progress_seconds,
        partial(probe, session),
    )
    ingest = IngestSetup(
        settings,
        shards,
        database.conninfo,
        settings.source.ignore_checkpoint,
        None if database.service is None else database.service.folder.root,
    )
    groups = []
    if database.service is not None:
        embedded = settings.embedded
        service = ServiceSpec(
            "postgres",
            database.service,
            start_seconds=embedded.start_seconds,
            drain_seconds=embedded.stop_seconds,
        )
        groups.append(group("postgres", service))
    if settings.monitor.enabled:
        groups.append(group("monitor", child("monitor", Monitor, monitor, status=True)))
    if labels.labelers or labels.discover:
        groups.append(group("label_client", child("label_client", LabelClient, labels)))
    if settings.resolver.enabled and _asks(settings):
        resolver = ResolverOptions(session, settings.network, settings.resolver)
        groups.append(group("resolver", child("resolver", Resolver, resolver)))
    groups += [
        group("user_gate", child("user_gate", UserGate, gate)),
        group("notifier", child("notifier", Notifier, NotifierSettings(session))),
        group("pending", child("pending", Pending, pending)),
        group("shard", *(child(member("shard", index), Shard, shard) for index in range(shards))),
    ]
    if _fetches(settings):
        relay = asked_at(settings.parsed_source())
        fetcher = FetcherOptions(
            *(session, settings.network, settings.fetcher, shards), personal=personal, relay=relay
        )
        groups.append(group("pds_fetcher", child("pds_fetcher", PdsFetcher, fetcher)))
    groups.append(group("ingest", child("ingest", Ingest, ingest)))
    return tuple(groups)


def _asks(settings: Settings) -> bool:
    """Whether accounts are looked up: a capture is replayed without asking anybody."""
    return settings.parsed_source().kind == "relay"


def _fetches(settings: Settings) -> bool:
    return settings.fetcher.enabled and _asks(settings)


def _begin(settings: Settings, database: Database, ownership: Ownership) -> int:
    """Check the database, take it for this run, and begin an epoch; returns its number."""
    check_database(database, connect_seconds=settings.database.connect_seconds)
    with mendable(database.label):
        epoch, before = ownership.take(count_indexes=settings.index.count_indexes)
    log.info("run begins", run=epoch, database=database.label)
    if before is not None:
        log.warning("the run before did not end in good order: taking over", before=before)
    return epoch
