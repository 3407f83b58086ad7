"""The PDS fetcher: fetches what is missing from the servers of accounts.

What that is stands in a table (see store/incomplete.py), filled from others: profiles of users,
subjects that operations wait for, repositories out of step, and what `run.py backfill` asked for.
Nothing durable is held here: after a crash the same things are due again, and fetching one twice
changes nothing. What was fetched goes through the shard of its account, which decides.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from actors.fetching import ending
from actors.fetching.asking import (
    KINDS,
    Alive,
    Asking,
    Failed,
    Got,
    Item,
    Limits,
    Listed,
    ReadWhole,
    Ready,
    Sliced,
    Unlisted,
    Whole,
    size_of,
)
from actors.fetching.figures import MOST_COUNTED, Figures
from actors.fetching.filling import Filling, Wants
from actors.fetching.job import Job, release
from actors.fetching.listing import Listing, trusted
from actors.fetching.pacing import Pacing
from actors.fetching.policy import REFRESHED_AT, Failure, Policy
from actors.fetching.sending import Sending
from actors.fetching.under_way import UnderWay
from actors.lasting_session import LastingSession
from actors.messages import FetchedRecord, ResyncBegins, ResyncEnds
from actors.outbound import Outbound, counting
from actors.store import incomplete, registry
from actors.store.incomplete import (
    BACKFILL_LAST,
    FAILED,
    PROFILES_NEXT,
    RECORDS_NEXT,
    REPO,
    REPOS_FIRST,
    WAITING,
    Due,
    Ended,
)
from actors.store.session import SessionSettings
from config.settings import FetcherSettings, NetworkSettings
from engine.actor import Actor
from engine.context import Context
from engine.iothread import IoThread
from engine.restarts import Backoff
from engine.timer import Timer

log = structlog.get_logger("pds_fetcher")

QUEUE_ITEMS: Final = 256
QUEUE_BYTES: Final = 16 * 1024 * 1024
TAKEN_ITEMS: Final = 64
# Rows of one rank that are looked at together.
LOOKED_AT: Final = 400
# And for each that can be begun, while others end.
LOOKS_AHEAD: Final = 8
# For each account whose server is not known and that is asked about before one.
ASKED_SECONDS: Final = 0.1
COUNT_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class FetcherOptions:
    """What the topology gives to the fetcher; see [fetcher] and [network] in default.toml. `relay`
    is where the relay of the run answers questions.
    """

    session: SessionSettings
    network: NetworkSettings
    fetcher: FetcherSettings
    shards: int
    look_seconds: float = 1.0
    personal: bool = False
    relay: str = ""


class PdsFetcher(Actor):
    """The actor."""

    settings: FetcherOptions

    def __init__(self, context: Context, settings: FetcherOptions) -> None:
        super().__init__(context, settings)
        of = settings.fetcher
        self._session = LastingSession(context, settings.session, registry.prepare)
        self._io: IoThread[Item] = IoThread(
            context, items=QUEUE_ITEMS, size=QUEUE_BYTES, size_of=size_of
        )
        self._outbound = Outbound(
            settings.network,
            trusted=trusted(settings.relay),
            count=counting(context.metrics, KINDS),
            clock=context.clock,
        )
        self._pacing = Pacing(of.backfill_records_per_second, context.clock.monotonic)
        folder = str(Path(of.folder).expanduser()) if of.folder else None
        limits = Limits(of.max_repo_bytes, of.repo_seconds, folder)
        self._asking = Asking(self._outbound, limits, context.clock.now, self._pacing)
        backoff = Backoff(of.retry_min_seconds, of.retry_max_seconds)
        self._policy = Policy(of.attempts, backoff, random.Random())  # noqa: S311 - jitter
        self._sending = Sending(context, settings.shards, self._acked)
        wants = Wants(
            of.records,
            of.profiles,
            of.repos,
            of.repos and of.whole_accounts,
            of.patience_seconds,
            of.failed_seconds,
            settings.personal,
        )
        self._filling = Filling(
            context, self._session, wants, settings.look_seconds, self._look_soon
        )
        # By what ranks share: how many at a time.
        single = ((RECORDS_NEXT,) if of.records else ()) + ((PROFILES_NEXT,) if of.profiles else ())
        self._lanes: list[tuple[tuple[int, ...], int]] = [(single, of.concurrency)]
        if of.repos:
            self._lanes.insert(0, ((REPOS_FIRST,), of.repo_concurrency))
            self._lanes.append(((BACKFILL_LAST,), of.backfill_concurrency))
        spare = settings.network.connections - sum(most for _, most in self._lanes)
        self._jobs = UnderWay(context.clock.monotonic, spare)
        self._timer: Timer | None = None
        self._figures = Figures(context.metrics)
        asker = context, self._session, self._io, self._asking, self._policy
        self._listing = Listing(*asker, settings.relay, self._look_soon)

    def on_start(self) -> None:
        """Connect to PostgreSQL, and begin."""
        self._session.open()
        self._io.start()
        self.context.watch(self._io.descriptor, self._take)
        self._io.submit(self._hold_outbound)
        self._sending.start()
        self._filling.start()
        if self.settings.fetcher.repos:
            self._listing.start()
        self._look()
        self._count()

    def on_drain(self) -> None:
        """Stop; what is under way is due again at the next start."""
        self.context.stop()

    def on_stop(self) -> None:
        """Close the connection to PostgreSQL."""
        self._session.close()

    async def _hold_outbound(self, _deliver: Callable[[Item], Awaitable[None]]) -> None:
        async with self._outbound:
            await asyncio.Event().wait()

    # --- what is due

    def _look_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.context.after(0.0, partial(self._look, timed=False))

    def _look(self, *, timed: bool = True) -> None:
        """Begin what is due, as far as there is room; of much that is due, all is looked at from
        time to time only.
        """
        if self._timer is not None:
            self._timer.cancel()
        for ranks, most in self._lanes:
            for rank in ranks:
                free = self._jobs.room(ranks, most)
                if free > 0:
                    self._begin_some(rank, free, LOOKED_AT if timed else LOOKS_AHEAD * free)
        self._figures.under_way.set(len(self._jobs))
        self._timer = self.context.after(self.settings.look_seconds, self._look)

    def _begin_some(self, rank: int, free: int, most: int) -> None:
        busy, most = self._jobs.keys, min(most, LOOKED_AT)
        found = self._session.attempt(partial(incomplete.due, rank=rank, limit=most, but=busy))
        ended: list[Ended] = []
        ask: list[str] = []
        behind: Counter[str] = Counter()
        for due in found:
            dismissed = ending.dismissed(due)
            if dismissed is not None:
                ended.append(dismissed)
            elif due.pds is None:
                # The more of them there are, the longer the resolver takes.
                ended.append(ending.without_server(due, self._policy, len(ask) * ASKED_SECONDS))
                ask.append(due.did)
            elif self._jobs.busy(due.pds) >= self.settings.fetcher.per_host:
                behind[due.pds] += 1
                if len(found) == most:
                    # They would stand before those of other hosts.
                    seconds = 1.0 + behind[due.pds] / self.settings.network.requests_per_second
                    ended.append(
                        Ended(due.kind, due.key, WAITING, due.attempts, "host_busy", seconds)
                    )
            elif free > 0:
                self._begin(due, rank, due.pds)
                free -= 1
        if ended:
            self._write(ended, ask=ask)

    def _begin(self, due: Due, rank: int, pds: str) -> None:
        job = self._jobs.begin(due, rank, pds)
        account = job.account
        if due.kind != REPO:
            self._io.submit(partial(self._asking.record, job.number, account, job.path))
        elif job.patient:
            self._io.submit(
                partial(self._asking.backfill, job.number, account, job.room, job.admission)
            )
        elif due.attempts or not self._jobs.is_well(job.host):
            # Nothing need wait for a server that is not there.
            self._io.submit(partial(self._asking.latest, job.number, account))
        else:
            self._park(job)

    def _park(self, job: Job) -> None:
        """Have the live events of a repository wait; it is asked for when that is certain."""
        job.parked = True
        self._send(job, ResyncBegins(job.due.did), "begin")

    # --- what came

    def _take(self) -> None:
        settled: list[Ended] = []
        refresh: list[str] = []
        for item in self._io.take(TAKEN_ITEMS):
            if isinstance(item, Listed | Unlisted):
                self._listing.take(item)
                continue
            job = self._jobs[item.job]
            match item:
                case Got(_, proven):
                    job.result = item
                    if proven.cid is None:
                        settled.append(self._end(job, ending.done(job.due, "absent")))
                    else:
                        message = FetchedRecord(
                            job.due.did, proven.rev, job.path, proven.cid, proven.record
                        )
                        self._send(job, message, "record")
                case Alive():
                    self._park(job)
                case Whole(_, repo, contents, size):
                    self._jobs.waits(job, item)
                    self._figures.read(contents, size)
                    self._figures.sliced(len(repo.records))
                    self._send(job, repo, "whole")
                    self._look_soon()
                case Ready():
                    job.read = True
                    self._park(job)
                case Sliced(_, part):
                    job.unacked += 1
                    self._figures.sliced(len(part.records))
                    self._send(job, part, "slice")
                case ReadWhole(_, _, _, contents, size):
                    job.result = item
                    self._figures.read(contents, size)
                    self._end_resync(job)
                case Failed(_, failure, _):
                    job.result = item
                    self._trouble(job, failure)
                    if job.parked:
                        self._end_resync(job)
                    else:
                        settled.append(self._failed(job, item, refresh))
        if settled:
            self._write(settled, refresh=refresh)
            self._look_soon()
        self.context.progress()

    def _trouble(self, job: Job, failure: Failure) -> None:
        log.debug("not fetched", kind=job.due.kind, key=job.due.key, reason=failure.reason)
        self._jobs.answers(job.host, False)

    def _send(self, job: Job, message: Any, step: str) -> None:
        # To begin and to end is no work worth a rest, and live events wait in between.
        patient = job.patient and step in ("whole", "slice")
        self._sending.send(job.due.did, message, (job.number, step), patient=patient)

    def _end_resync(self, job: Job) -> None:
        """End it once all of its slices are written."""
        if job.unacked or job.result is None:
            return
        if isinstance(job.result, ReadWhole):
            ends = ResyncEnds(job.due.did, job.result.rev, job.result.data)
        else:
            ends = ResyncEnds(job.due.did, None, None)
        self._send(job, ends, "end")

    # --- what is written

    def _acked(self, tokens: Sequence[tuple[int, str]]) -> None:
        written: list[Job] = []
        released: list[Job] = []
        for number, step in tokens:
            job = self._jobs[number]
            match step:
                case "begin":
                    guard = self._session.attempt(partial(incomplete.rev_of, did=job.due.did))
                    self.context.crash_point("fetcher.parked")
                    if job.read:
                        self._io.submit(partial(job.admission.admit, guard))
                        continue
                    self._io.submit(
                        partial(
                            self._asking.repo, number, job.account, guard, job.room, job.patient
                        )
                    )
                case "slice":
                    job.unacked -= 1
                    self.context.crash_point("fetcher.sliced")
                    released.append(job)
                    self._end_resync(job)
                case _:
                    written.append(job)
        if released:
            self._io.submit(partial(release, released))
        if written:
            self.context.crash_point("fetcher.applied")
            self._settle(written)
            self.context.crash_point("fetcher.settled")
            self._look_soon()

    def _settle(self, jobs: Sequence[Job]) -> None:
        """See what became of what the shards were given."""
        asked = [(*job.due.row, job.due.did) for job in jobs]
        found = self._session.attempt(partial(incomplete.standing, asked=asked))
        refresh: list[str] = []
        ended = []
        for job in jobs:
            result = job.result
            assert result is not None, job
            if isinstance(result, Failed):
                ended.append(self._failed(job, result, refresh))
            elif isinstance(result, Whole) and ending.overtaken(result, found[job.due.row]):
                self._jobs.again(job)
                self._park(job)
            else:
                self._jobs.answers(job.host, True)
                became = ending.written(job.due, result, found[job.due.row], self._policy)
                ended.append(self._end(job, became))
        self._write(ended, refresh=refresh)

    def _failed(self, job: Job, failed: Failed, refresh: list[str]) -> Ended:
        ended = ending.failed(job.due, failed.failure, self._policy)
        if failed.failure.may_have_moved and ended.attempts in REFRESHED_AT:
            refresh.append(job.due.did)
        return self._end(job, ended)

    def _end(self, job: Job, ended: Ended) -> Ended:
        """It is under way no more."""
        if ended.state == FAILED:
            log.info(
                "given up; `run.py backfill --failed` lists it",
                kind=ended.kind,
                key=ended.key,
                reason=ended.reason,
                attempts=ended.attempts,
            )
        self._jobs.end(job)
        self._figures.ended(job.due.kind, ended.reason or "applied")
        return ended

    def _write(
        self, ended: Iterable[Ended], *, ask: Sequence[str] = (), refresh: Sequence[str] = ()
    ) -> None:
        fence = self._session.fence
        self._session.attempt(
            partial(incomplete.write, fence=fence, ended=tuple(ended), ask=ask, refresh=refresh)
        )

    def _count(self) -> None:
        counts = self._session.attempt(partial(incomplete.backlog, most=MOST_COUNTED))
        self._figures.backlog(counts)
        self.context.after(COUNT_SECONDS, self._count)
