"""The settings, typed: one struct per section of ``default.toml``.

To add a setting, add its line to ``default.toml`` (with its comment) and its field here; the
environment variable, the checks of type and range and the hints of the loader follow from those.
Defaults stand in ``default.toml`` only.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from config.accounts import DID, listed, parse_accounts
from config.source import Source, Start, parse_source, parse_start

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]
BytesOrNone = Annotated[int, Meta(ge=0, le=1 << 50, description="0 switches it off")]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=31_536_000, description="0 switches it off")]
Milliseconds = Annotated[float, Meta(ge=0, le=600_000)]
Port = Annotated[int, Meta(ge=0, le=65_535, description="0: any free one")]
# As PostgreSQL writes them: a number and kB, MB, GB or TB.
PostgresSize = Annotated[str, Meta(pattern=r"^[1-9]\d{0,8}(kB|MB|GB|TB)$")]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$")]
HttpUrlOrNone = Annotated[str, Meta(pattern=r"^(https?://[^\s/]+(/\S*)?)?$")]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the sections."""


class RunSettings(Section, frozen=True):
    shards: Annotated[int, Meta(ge=0, le=256, description="0: one per core")]
    source: str
    data_dir: str
    database_url: str
    until_caught_up: bool


class SourceSettings(Section, frozen=True):
    start: str | int
    ignore_checkpoint: bool
    idle_seconds: Seconds
    standby: str
    failover_seconds: Seconds


class IngestSettings(Section, frozen=True):
    window_frames: Count
    window_bytes: Bytes
    batch_frames: Count
    batch_bytes: Bytes
    batch_linger_ms: Milliseconds
    stall_seconds: Seconds
    reconnect_min_seconds: Seconds
    reconnect_max_seconds: Seconds
    checkpoint_seconds: Seconds
    max_frame_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)]
    queue_frames: Count
    queue_bytes: Bytes


class ShardSettings(Section, frozen=True):
    batch_commits: Annotated[int, Meta(ge=1, le=100_000)]
    batch_bytes: Bytes
    batch_linger_ms: Milliseconds
    user_cache: Count
    gate_timeout_ms: Milliseconds
    parked_bytes: Bytes


class UserGateSettings(Section, frozen=True):
    max_concurrent_user_creations: Annotated[int, Meta(ge=1, le=100)]
    batch_users: Annotated[int, Meta(ge=1, le=100_000)]
    known_cache: Count


class PendingSettings(Section, frozen=True):
    ttl_seconds: Seconds
    max_rows: Count
    max_bytes: Bytes


class LabelsSettings(Section, frozen=True):
    labelers: str
    discover: bool
    max_labelers: Annotated[int, Meta(ge=1, le=10_000)]
    forward_url: HttpUrlOrNone
    reconnect_min_seconds: Seconds
    reconnect_max_seconds: Seconds
    stall_seconds: Seconds
    max_frame_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)]

    def parsed_labelers(self) -> tuple[str, ...]:
        """The DIDs of labelers, each once. Raises ValueError (the loader has checked it)."""
        found = listed(self.labelers)
        for text in found:
            if not DID.fullmatch(text):
                raise ValueError(f"labels.labelers: {text!r} is no did:plc or did:web")
        return found


class MonitorSettings(Section, frozen=True):
    enabled: bool
    host: str
    port: Port
    ready_lag_seconds: Seconds


class DatabaseSettings(Section, frozen=True):
    connect_seconds: Seconds
    statement_timeout_seconds: SecondsOrNone
    lock_timeout_seconds: SecondsOrNone
    outage_seconds: Seconds


class EmbeddedSettings(Section, frozen=True):
    shared_buffers: PostgresSize
    max_wal_size: PostgresSize
    work_mem: PostgresSize
    maintenance_work_mem: PostgresSize
    max_connections: Annotated[int, Meta(ge=20, le=10_000)]
    start_seconds: Seconds
    stop_seconds: Seconds
    warn_free_bytes: BytesOrNone
    min_free_bytes: BytesOrNone


class SupervisorSettings(Section, frozen=True):
    intensity: Annotated[int, Meta(ge=0, le=10_000)]
    period_seconds: Seconds
    backoff_min_seconds: Seconds
    backoff_max_seconds: Seconds
    drain_seconds: Seconds
    progress_seconds: Seconds


class LogSettings(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]
    progress_seconds: Seconds


class NetworkSettings(Section, frozen=True):
    plc_url: HttpUrl
    allow_private_hosts: bool
    nameservers: str
    dns_seconds: Seconds
    connect_seconds: Seconds
    answer_seconds: Seconds
    connections: Annotated[int, Meta(ge=1, le=10_000)]
    connections_per_host: Annotated[int, Meta(ge=1, le=1_000)]
    requests_per_second: Annotated[float, Meta(gt=0, le=1_000_000)]
    queue_seconds: Seconds
    floor_bytes: Bytes
    floor_seconds: Seconds
    tries: Annotated[int, Meta(ge=1, le=10)]
    retry_after_max_seconds: Seconds
    breaker_failures: Count
    breaker_min_seconds: Seconds
    breaker_max_seconds: Seconds
    hosts: Count


class ResolverSettings(Section, frozen=True):
    enabled: bool
    requests_per_second: Annotated[float, Meta(gt=0, le=1_000_000)]
    connections: Annotated[int, Meta(ge=1, le=1_000)]
    concurrency: Annotated[int, Meta(ge=1, le=10_000)]
    valid_seconds: Seconds
    invalid_seconds: Seconds
    error_seconds: Seconds
    error_max_seconds: Seconds
    grace_seconds: Seconds
    known_handles: Count


class FetcherSettings(Section, frozen=True):
    enabled: bool
    records: bool
    profiles: bool
    repos: bool
    whole_accounts: bool
    concurrency: Annotated[int, Meta(ge=1, le=10_000)]
    repo_concurrency: Annotated[int, Meta(ge=1, le=1_000)]
    backfill_concurrency: Annotated[int, Meta(ge=1, le=1_000)]
    backfill_records_per_second: Annotated[float, Meta(gt=0, le=1_000_000)]
    per_host: Annotated[int, Meta(ge=1, le=1_000)]
    max_repo_bytes: Bytes
    repo_seconds: Seconds
    folder: str
    patience_seconds: SecondsOrNone
    attempts: Count
    retry_min_seconds: Seconds
    retry_max_seconds: Seconds
    failed_seconds: Seconds


class PersonalSettings(Section, frozen=True):
    accounts: str
    max_accounts: Count

    def parsed_accounts(self) -> tuple[str, ...]:
        """The DIDs of accounts, each once. Raises ValueError (the loader has checked it)."""
        return parse_accounts(self.accounts)


class VerifySettings(Section, frozen=True):
    mode: Literal["structure", "signatures", "full"]


class LexiconSettings(Section, frozen=True):
    mode: Literal["on", "off", "report"]
    folder: str


class IndexSettings(Section, frozen=True):
    count_indexes: bool
    search_vector: bool
    kept_drops: Annotated[int, Meta(ge=0, le=100_000_000, description="0 switches it off")]


class Settings(Section, frozen=True):
    """All settings of a run; picklable, so that it travels to the spawned processes."""

    run: RunSettings
    source: SourceSettings
    ingest: IngestSettings
    shard: ShardSettings
    user_gate: UserGateSettings
    pending: PendingSettings
    labels: LabelsSettings
    monitor: MonitorSettings
    database: DatabaseSettings
    embedded: EmbeddedSettings
    supervisor: SupervisorSettings
    log: LogSettings
    network: NetworkSettings
    resolver: ResolverSettings
    fetcher: FetcherSettings
    personal: PersonalSettings
    verify: VerifySettings
    lexicon: LexiconSettings
    index: IndexSettings

    def parsed_source(self) -> Source:
        """The source of events. Raises ValueError (the loader has checked it once)."""
        return parse_source(self.run.source)

    def parsed_sources(self) -> tuple[Source, ...]:
        """The source and those that take over from it, in this order.

        Raises ValueError (the loader has checked it once).
        """
        standbys = tuple(parse_source(text) for text in listed(self.source.standby))
        return tuple(dict.fromkeys((self.parsed_source(), *standbys)))

    def parsed_start(self) -> Start:
        """Where the first run starts. Raises ValueError (the loader has checked it once)."""
        return parse_start(self.source.start, self.parsed_source())


def lookup(settings: Settings, key: str) -> Any:
    """The value of ``section.key``. Raises AttributeError for an unknown one."""
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)
