"""What the fetcher counts."""

from typing import Final

from actors.fetching.repo_file import Contents
from engine.metrics import Metrics

MOST_COUNTED: Final = 100_000
"""Rows of a kind and state, beyond which they are not counted on."""


class Figures:
    """Counters and gauges."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._records = metrics.counter("fetched_records_total", "Records of whole repositories")
        self._skipped = metrics.counter(
            "fetched_skipped_total", "Records of whole repositories that cannot be indexed"
        )
        self._bytes = metrics.counter("fetched_bytes_total", "Bytes of whole repositories")
        self.under_way = metrics.gauge("fetches", "Fetches under way")
        self._known: set[tuple[str, str]] = set()

    def sliced(self, records: int) -> None:
        """So many records of a repository were handed on."""
        self._records.add(records)

    def read(self, contents: Contents, size: int) -> None:
        """A repository of so many bytes was read."""
        self._skipped.add(contents.skipped)
        self._bytes.add(size)

    def ended(self, kind: str, outcome: str) -> None:
        """A fetch came to something."""
        self._metrics.counter(
            "fetched_total", "Fetches, by kind and outcome", kind=kind, outcome=outcome
        ).add()

    def backlog(self, counts: dict[tuple[str, str], int]) -> None:
        """So much of each kind and state is in the queue."""
        for kind, state in self._known | counts.keys():
            self._metrics.gauge(
                "fetch_backlog", "Things to be fetched, or given up", kind=kind, state=state
            ).set(counts.get((kind, state), 0))
        self._known |= counts.keys()
