"""What a record costs on its ways into an empty index: live, and by whole repositories.

One writer on an embedded server, without network and other actors. Live: commits in batches, as
they were made. Slices: each repository by itself, its live events parked before and drained after.
Whole: small repositories, several in a transaction. The same accounts each time; decoding included.
Prints one JSON line with records a second, and with the processor time of a record (PostgreSQL's
included), which says more on a busy machine.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import psutil

from actors.atproto import commit, frames
from actors.atproto.events import Commit
from actors.decoder import Batch
from actors.fetched import decoded
from actors.fetching.repo_file import SLICE_RECORDS
from actors.messages import RepoRecord, RepoSlice, WholeRepo, WholeRepos
from actors.store import resync
from actors.store.fence import Fence, raise_epoch
from actors.store.parking import Parked
from actors.store.resync import Drained
from actors.store.session import SessionSettings, open_session
from actors.store.writer import Writer
from bench.end_to_end import fresh_database, server
from bench.network import Network

COMMITS: Final = 500
# Not what is done a few times at the start: plans, files.
WARM: Final = 0.2


class Cost(NamedTuple):
    """Seconds by the clock, and of processors: ours and the server's."""

    wall: float
    cpu: float


def repositories(events: Sequence[bytes]) -> list[WholeRepo]:
    """What the events leave of each account."""
    states: dict[str, tuple[str, bytes]] = {}
    records: dict[str, dict[str, RepoRecord]] = {}
    for frame in events:
        event = frames.decode(frame)
        if not isinstance(event, Commit):
            continue
        opened = commit.open_commit(event)
        states[event.did] = event.rev, opened.signed.data
        held = records.setdefault(event.did, {})
        for op in opened.ops:
            path = f"{op.collection}/{op.rkey}"
            held.pop(path, None)
            if op.cid is not None and op.record is not None:
                held[path] = RepoRecord(path, op.cid, op.record)
    return [
        WholeRepo(did, *states[did], [held[path] for path in sorted(held)])
        for did, held in records.items()
        if held and len(held) <= SLICE_RECORDS
    ]


def live(writer: Writer, events: Sequence[bytes]) -> Iterator[None]:
    """Apply events as they come."""
    for at in range(0, len(events), COMMITS):
        batch = Batch()
        for frame in events[at : at + COMMITS]:
            batch.add(frame)
        writer.apply(batch.changes)
        yield


def slices(writer: Writer, repos: Sequence[WholeRepo]) -> Iterator[None]:
    """Apply repositories one by one, as those are whose live events wait."""
    for repo in repos:
        resync.begin(writer, repo.did, _no_wait)
        part = RepoSlice(repo.did, repo.rev, "", None, repo.records)
        decoded(Batch(), part)(writer, _no_wait, ())
        resync.end(writer, repo.did, repo.rev, repo.data, _no_wait)
        resync.drain(writer, repo.did, _nothing, _no_wait)
        yield


def whole(writer: Writer, repos: Sequence[WholeRepo]) -> Iterator[None]:
    """Apply repositories several at a time."""
    together: list[WholeRepo] = []
    for repo in [*repos, None]:
        size = sum(len(each.records) + 1 for each in together)
        if together and (repo is None or size + len(repo.records) + 1 > SLICE_RECORDS):
            decoded(Batch(), WholeRepos(together))(writer, _no_wait, ())
            together = []
            yield
        if repo is not None:
            together.append(repo)


def measured(database: str, steps: Callable[[Writer], Iterator[None]], count: int) -> Cost:
    """Take the steps in a fresh database; the first of them are not counted."""
    with open_session(SessionSettings(database), "bench") as connection:
        fence = Fence("bench", raise_epoch(connection, "bench"), 1)
        fence.claim(connection)
        writer = Writer(connection, fence)
        backend = psutil.Process(connection.info.backend_pid)
        wall = cpu = 0.0
        for number, _ in enumerate(steps(writer)):
            if number == int(WARM * count):
                wall, cpu = time.perf_counter(), _spent(backend)
        return Cost(time.perf_counter() - wall, _spent(backend) - cpu)


def _spent(backend: psutil.Process) -> float:
    of = backend.cpu_times()
    return float(of.user + of.system) + time.process_time()


def _no_wait(_seconds: float) -> None:
    return None


def _nothing(_connection: Any, _did: str, _rows: Sequence[Parked]) -> Drained:
    return Drained((), 0)


@click.command()
@click.option("--events", default=40_000, show_default=True, help="Events of a made network.")
@click.option("--users", default=1_500, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(events: int, users: int, rounds: int) -> None:
    """Measure what a record costs."""
    made = list(Network(seed=3, users=users).events(events))
    repos = repositories(made)
    kept = {repo.did for repo in repos}
    stream = [frame for frame in made if frames.peek(frame).did in kept]
    records = sum(len(repo.records) for repo in repos)
    ways: dict[str, tuple[Callable[[Writer], Iterator[None]], int]] = {
        "live": (lambda writer: live(writer, stream), len(stream) // COMMITS + 1),
        "slices": (lambda writer: slices(writer, repos), len(repos)),
        "whole": (lambda writer: whole(writer, repos), records // SLICE_RECORDS + 1),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp")))
        folder.chmod(0o755)
        conninfo = stack.enter_context(server(folder))
        for turn in range(rounds):
            for name, (steps, count) in ways.items():
                with fresh_database(conninfo, f"{name}_{turn}") as database:
                    costs[name].append(measured(database, steps, count))
    counted = records * (1 - WARM)
    figures = {
        name: {
            "records_per_second": round(counted / statistics.median(each.wall for each in of)),
            "cpu_us_per_record": round(
                statistics.median(each.cpu for each in of) / counted * 1e6, 1
            ),
        }
        for name, of in costs.items()
    }
    print(
        json.dumps(
            {
                "bench": "backfill",
                "accounts": len(repos),
                "records": records,
                "events": len(stream),
                "rounds": rounds,
                **figures,
            }
        )
    )


if __name__ == "__main__":
    main()
