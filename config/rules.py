"""What must hold between settings, or of one beyond its type and range."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from config.nameservers import parse_nameservers
from config.settings import Settings, lookup

# Connections beside those of shards and user gate: supervisor, monitor, ingest, and a few to look.
OTHER_CONNECTIONS: Final = 10


class Rule(NamedTuple):
    """What must hold between settings; ``check`` returns a sentence where it does not."""

    keys: tuple[str, ...]
    check: Callable[[Settings], str | None]


def _at_least(larger: str, smaller: str) -> Rule:
    def check(settings: Settings) -> str | None:
        high, low = lookup(settings, larger), lookup(settings, smaller)
        if high >= low:
            return None
        return f"{larger} ({high}) must be at least {smaller} ({low})"

    return Rule((larger, smaller), check)


def _connections_suffice(settings: Settings) -> str | None:
    """The writers of a run, the supervisor's, the monitor's, and some for whoever reads."""
    shards, most = settings.run.shards, settings.embedded.max_connections
    needed = shards + settings.user_gate.max_concurrent_user_creations + OTHER_CONNECTIONS
    if settings.run.database_url or needed <= most:
        return None
    return f"{shards} shards need embedded.max_connections of {needed} or more, and it is {most}"


def _source_is_usable(settings: Settings) -> str | None:
    try:
        settings.parsed_source()
    except ValueError as error:
        return str(error)
    return None


def _standbys_are_usable(settings: Settings) -> str | None:
    try:
        sources = settings.parsed_sources()
    except ValueError as error:
        return f"source.standby: {error}"
    if len(sources) > 1 and any(source.kind == "capture" for source in sources):
        return "source.standby: only relays can take over from each other"
    return None


def _start_is_usable(settings: Settings) -> str | None:
    try:
        settings.parsed_start()
    except ValueError as error:
        return str(error)
    return None


def _data_dir_is_usable(settings: Settings) -> str | None:
    folder = Path(settings.run.data_dir).expanduser()
    if settings.run.data_dir and folder.exists() and not folder.is_dir():
        return f"{folder} is not a folder"
    return None


def _lexicon_folder_is_usable(settings: Settings) -> str | None:
    folder = Path(settings.lexicon.folder).expanduser()
    if settings.lexicon.folder and not folder.is_dir():
        return f"{folder} is not a folder"
    return None


def _keys_can_be_had(settings: Settings) -> str | None:
    if settings.verify.mode == "structure":
        return None
    asked = settings.resolver.enabled and settings.parsed_source().kind == "relay"
    if asked:
        return None
    return 'keys come from the resolver, which is off, or left out with a capture: say "structure"'


def _fetcher_folder_is_usable(settings: Settings) -> str | None:
    folder = Path(settings.fetcher.folder).expanduser()
    if settings.fetcher.folder and not folder.is_dir():
        return f"{folder} is not a folder"
    return None


def _labelers_are_usable(settings: Settings) -> str | None:
    try:
        count = len(settings.labels.parsed_labelers())
    except ValueError as error:
        return str(error)
    most = settings.labels.max_labelers
    return None if count <= most else f"labels.max_labelers ({most}) must be at least {count}"


def _personal_is_usable(settings: Settings) -> str | None:
    """Whom an account follows is known from its repository, so that must be fetched."""
    try:
        accounts = settings.personal.parsed_accounts()
    except ValueError as error:
        return str(error)
    most, fetcher = settings.personal.max_accounts, settings.fetcher
    if not accounts:
        return None
    if len(accounts) > most:
        return f"personal.max_accounts ({most}) must be at least {len(accounts)}"
    if settings.parsed_source().kind == "capture":
        return "personal.accounts needs a relay: with a capture nothing is fetched"
    if not (fetcher.enabled and fetcher.repos and settings.resolver.enabled):
        return "personal.accounts needs resolver.enabled, fetcher.enabled and fetcher.repos"
    if fetcher.whole_accounts:
        return "personal.accounts and fetcher.whole_accounts contradict each other: unset one"
    return None


def _nameservers_are_usable(settings: Settings) -> str | None:
    try:
        parse_nameservers(settings.network.nameservers)
    except ValueError as error:
        return str(error)
    return None


RULES: Final = (
    Rule(("run.source",), _source_is_usable),
    Rule(("source.start", "run.source"), _start_is_usable),
    Rule(("source.standby", "run.source"), _standbys_are_usable),
    Rule(("run.data_dir",), _data_dir_is_usable),
    Rule(("lexicon.folder",), _lexicon_folder_is_usable),
    Rule(("verify.mode", "resolver.enabled", "run.source"), _keys_can_be_had),
    Rule(("network.nameservers",), _nameservers_are_usable),
    Rule(("labels.labelers", "labels.max_labelers"), _labelers_are_usable),
    Rule(
        (
            *("personal.accounts", "personal.max_accounts", "run.source", "resolver.enabled"),
            *("fetcher.enabled", "fetcher.repos", "fetcher.whole_accounts"),
        ),
        _personal_is_usable,
    ),
    Rule(("run.shards", "embedded.max_connections"), _connections_suffice),
    _at_least("ingest.window_frames", "ingest.batch_frames"),
    # A writer whose statement may run for longer would be taken for stuck.
    _at_least("supervisor.progress_seconds", "database.statement_timeout_seconds"),
    _at_least("ingest.window_bytes", "ingest.batch_bytes"),
    _at_least("ingest.window_bytes", "ingest.max_frame_bytes"),
    _at_least("ingest.queue_bytes", "ingest.max_frame_bytes"),
    _at_least("ingest.reconnect_max_seconds", "ingest.reconnect_min_seconds"),
    _at_least("labels.reconnect_max_seconds", "labels.reconnect_min_seconds"),
    _at_least("network.breaker_max_seconds", "network.breaker_min_seconds"),
    _at_least("fetcher.retry_max_seconds", "fetcher.retry_min_seconds"),
    Rule(("fetcher.folder",), _fetcher_folder_is_usable),
    _at_least("resolver.error_max_seconds", "resolver.error_seconds"),
    _at_least("supervisor.backoff_max_seconds", "supervisor.backoff_min_seconds"),
    _at_least("embedded.warn_free_bytes", "embedded.min_free_bytes"),
)
