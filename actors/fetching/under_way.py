"""What is being fetched: jobs, the servers that are busy with them, the bytes that they hold."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from actors.fetching.asking import Account, Whole
from actors.fetching.job import Job
from actors.store.incomplete import BACKFILL_LAST, Due

MOST_WAITING: Final = 2_000
"""Records, and repositories, that were read and wait for their shard, beyond which no more are
fetched: what waits for long is overtaken by live events.
"""
MOST_HOSTS: Final = 100_000
"""Hosts of which it is remembered that they answer; others are asked once more than need be."""
LATE_SECONDS: Final = 1.0
"""Who has not answered by then may be one who never does."""


class UnderWay:
    """The jobs by their numbers. A number is used once, so what comes late meets no other job.

    Args:
        now: tells the time in seconds; only differences count.
        spare: jobs that may wait for servers that are late without taking a place of others.
    """

    def __init__(self, now: Callable[[], float], spare: int) -> None:
        self._now = now
        self._spare = spare
        self._jobs: dict[int, Job] = {}
        self._number = 0
        self._hosts: Counter[str] = Counter()
        self._well: set[str] = set()
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, number: int) -> Job:
        return self._jobs[number]

    @property
    def keys(self) -> list[str]:
        """What they fetch."""
        return [job.due.key for job in self._jobs.values()]

    def room(self, ranks: Iterable[int], most: int) -> int:
        """How many more may be begun of ranks that share `most` places.

        A small repository that was read takes none, as long as not too much waits; nor
        do some of those whose servers are late, as the dead ones would hold up all others.
        """
        if self._waiting >= MOST_WAITING and BACKFILL_LAST in ranks:
            return 0
        since = self._now() - LATE_SECONDS
        taken = late = elsewhere = 0
        for job in self._jobs.values():
            if job.rank not in ranks:
                elsewhere += job.is_late(since)
            elif not isinstance(job.result, Whole):
                taken += 1
                late += job.is_late(since)
        return most - taken + max(0, min(late, self._spare - elsewhere))

    def busy(self, pds: str) -> int:
        """With how many of them a server is busy."""
        return self._hosts[pds]

    def is_well(self, host: str) -> bool:
        """Whether the last that came of a host was what was asked for; False for one never met."""
        return host in self._well

    def answers(self, host: str, well: bool) -> None:
        """Something came of a host, or did not."""
        if not well:
            self._well.discard(host)
        elif len(self._well) < MOST_HOSTS:
            self._well.add(host)

    def begin(self, due: Due, rank: int, pds: str) -> Job:
        """Begin a job; its server is busy with it."""
        self._number += 1
        account = Account(due.did, pds, due.signing_key)
        job = Job(self._number, due, rank, account, urlsplit(pds).hostname or pds)
        self._jobs[job.number] = job
        self._occupy(job)
        return job

    def waits(self, job: Job, whole: Whole) -> None:
        """It was read whole, and waits for its shard."""
        job.result = whole
        self._waiting += len(whole.repo.records) + 1
        self._let_go(job)

    def again(self, job: Job) -> None:
        """It was written, or not, and is to be fetched again."""
        self._written(job)
        job.result = None
        self._occupy(job)

    def end(self, job: Job) -> None:
        """It is over."""
        self._written(job)
        del self._jobs[job.number]
        self._let_go(job)

    def _written(self, job: Job) -> None:
        if isinstance(job.result, Whole):
            self._waiting -= len(job.result.repo.records) + 1

    def _occupy(self, job: Job) -> None:
        job.asks = True
        job.began = self._now()
        self._hosts[job.account.pds] += 1

    def _let_go(self, job: Job) -> None:
        if not job.asks:
            return
        job.asks = False
        self._hosts[job.account.pds] -= 1
        if not self._hosts[job.account.pds]:
            del self._hosts[job.account.pds]
