"""What a shard counts and logs of what it did."""

from typing import Final

import structlog

from actors.store.batch import Dropped, Outcome
from engine.metrics import COUNTS, Counter, Metrics

log = structlog.get_logger()

# After this many drops of one reason the log says no more of them; the counters go on.
LOGGED_DROPS: Final = 5


class ShardMetrics:
    """The counters of one shard."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._logged: dict[str, int] = {}
        self._commits = metrics.counter("commits_total", "Commits applied")
        self._replayed = metrics.counter("replayed_total", "Commits that were known already")
        self._gaps = metrics.counter("discontinuous_total", "Commits applied out of step")
        self._cuts = metrics.counter("texts_cut_total", "Texts too long for an existing column")
        self._retries = metrics.counter("batch_retries_total", "Batches tried again (locks)")
        self._parked = metrics.counter("parked_total", "Events that wait for their repository")
        self._given_up = metrics.counter(
            "parked_given_up_total", "Accounts of which too much waited: they are fetched anew"
        )
        self._stale = metrics.counter("stale_total", "Fetched, and older than what is indexed")
        self.outages = metrics.counter("database_outages_total", "Times PostgreSQL was away")
        self.gate_misses = metrics.counter(
            "user_gate_misses_total", "Batches that did not wait for the user gate"
        )
        self.seconds = metrics.histogram("batch_seconds", "Decoding and writing a batch")
        self.sizes = metrics.histogram("batch_frames", "Frames in a batch", buckets=COUNTS)

    def count(self, outcome: Outcome) -> None:
        """Count what a transaction did, and log its drops."""
        for drop in outcome.drops:
            self.drop(drop)
        self._commits.add(outcome.commits)
        self._replayed.add(outcome.replayed)
        self._gaps.add(outcome.discontinuous)
        self._cuts.add(outcome.cuts)
        self._retries.add(outcome.retries)
        self._parked.add(outcome.parked)
        self._given_up.add(outcome.given_up)
        if outcome.given_up:
            log.warning(
                "more events wait of an account than parked_bytes of [shard] allows: they are given"
                " up, and its repository is to be fetched whole",
                accounts=outcome.given_up,
            )
        self._stale.add(outcome.stale)
        for (table, action), amount in outcome.operations.items():
            self._labelled(
                "operations_total", "Operations applied", table=table, action=action
            ).add(amount)
        for (action, kind), amount in outcome.pending.items():
            self._labelled(
                "pending_total", "Entries of the registry", action=action, kind=kind
            ).add(amount)
        for flag, amount in outcome.flags.items():
            self._labelled("judged_total", "Judgements of posts that changed", flag=flag).add(
                amount
            )

    def drop(self, drop: Dropped) -> None:
        """Count a drop; the first ones of each reason are logged."""
        self._labelled("drops_total", "Bad input stepped over", reason=drop.reason).add()
        self._log("dropped", drop)

    def report(self, report: Dropped) -> None:
        """Count what would be a drop and was let through."""
        self._labelled(
            "lexicon_reported_total", "Records that break their lexicon and were let through"
        ).add()
        self._log("breaks its lexicon, and is only reported", report)

    def _labelled(self, name: str, text: str, **labels: str) -> Counter:
        return self._metrics.counter(name, text, **labels)

    def _log(self, event: str, drop: Dropped) -> None:
        reason = drop.reason
        logged = self._logged[reason] = self._logged.get(reason, 0) + 1
        if logged <= LOGGED_DROPS:
            rest = " (further ones are only counted)" if logged == LOGGED_DROPS else ""
            log.info(f"{event}{rest}", reason=reason, subject=drop.subject, detail=drop.detail)
