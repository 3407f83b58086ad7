"""What the fetcher brought, made ready for the writer. Pure, until it is applied."""

from collections.abc import Callable, Iterable, Sequence

from actors.decoder import Batch
from actors.messages import FetchedRecord, RepoRecord, RepoSlice, WholeRepos
from actors.store import resync
from actors.store.batch import Outcome
from actors.store.held import Range
from actors.store.resync import Wait, Whole
from actors.store.writer import Writer

Work = Sequence[tuple[str, bytes]]
Apply = Callable[[Writer, Wait, Work], Outcome]


def decoded(batch: Batch, message: FetchedRecord | RepoSlice | WholeRepos) -> Apply:
    """Decode what was fetched; returns what applies it, with work for the outbox.

    Of the batch only the authors, the subjects and the reports are of use afterwards.
    """
    match message:
        case FetchedRecord(did, rev, path, name, record):
            paths: Range | None = None
            fetched = batch.fetched(did, rev, [(path, name, record)])
        case RepoSlice(did, rev, after, until, records):
            paths = Range(after, until)
            fetched = batch.fetched(did, rev, _plain(records))
        case WholeRepos(repos):
            wholes = [
                Whole(batch.fetched(each.did, each.rev, _plain(each.records)), each.data)
                for each in repos
            ]
            return lambda writer, wait, work: resync.apply_whole(writer, wholes, wait, work)
    return lambda writer, wait, work: resync.apply_fetched(writer, fetched, paths, wait, work)


def _plain(records: Iterable[RepoRecord]) -> list[tuple[str, bytes | None, bytes | None]]:
    return [(each.path, each.cid, each.record) for each in records]
