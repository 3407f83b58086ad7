"""Asks the servers of accounts, in the I/O thread: for single records with their proof, and for
whole repositories.

What comes is checked here, before anything of it is handed on. A repository goes to a file without
a name, and from there in slices, of which only a few are under way at a time.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO, Final, NamedTuple
from urllib.parse import quote

from actors.atproto import multikey
from actors.atproto.errors import WireError
from actors.atproto.multikey import PublicKey
from actors.fetching import account_list, proof
from actors.fetching.car_file import CarFile
from actors.fetching.policy import Failure, Refused, failure_of
from actors.fetching.repo_file import Contents, RepoFile
from actors.messages import RepoSlice, WholeRepo
from actors.outbound import Answer, Outbound, OutboundError

RECORD: Final = "record"
REPO: Final = "repo"
LATEST: Final = "latest"
LIST: Final = "list"
KINDS: Final = (RECORD, REPO, LATEST, LIST)
"""What requests are counted as."""

# A record has 1,000,000 bytes at most; the nodes of its proof come on top.
RECORD_BYTES: Final = 1_500_000
RECORD_SECONDS: Final = 20.0
LATEST_BYTES: Final = 4_096
LIST_BYTES: Final = 2_000_000
ERROR_BYTES: Final = 4_096
SLICES_UNDER_WAY: Final = 2
"""Slices of one repository that are handed on and not yet written."""

# The smallest block that says anything is larger, so this bounds the memory of a file's index.
_BYTES_A_BLOCK: Final = 100


class Limits(NamedTuple):
    """Of whole repositories: bytes, seconds, and the folder of their files (None: the system's)."""

    bytes: int
    seconds: float
    folder: str | None


class Account(NamedTuple):
    """Whom to ask, about whom, and what must have signed the answer (None: not known)."""

    did: str
    pds: str
    key: str | None


class Got(NamedTuple):
    """A record, or the proof that there is none."""

    job: int
    proven: proof.Proven


class Alive(NamedTuple):
    """The server has the repository."""

    job: int


class Sliced(NamedTuple):
    """A part of a repository."""

    job: int
    slice: RepoSlice


class Whole(NamedTuple):
    """A small repository, read while its live events went on; and what it held, the size of its
    file.
    """

    job: int
    repo: WholeRepo
    contents: Contents
    size: int


class Ready(NamedTuple):
    """A large repository was read. Its live events have to wait before its parts are handed on."""

    job: int


class ReadWhole(NamedTuple):
    """All parts of a repository were handed on: its state, what it held, the size of its file."""

    job: int
    rev: str
    data: bytes
    contents: Contents
    size: int


class Listed(NamedTuple):
    """A page of the accounts of a server; see `account_list.Page`."""

    url: str
    dids: list[str]
    skipped: int
    cursor: str | None


class Unlisted(NamedTuple):
    """A page that did not come."""

    url: str
    failure: Failure


class Failed(NamedTuple):
    """It came to nothing."""

    job: int
    failure: Failure
    detail: str


Item = Got | Alive | Whole | Ready | Sliced | ReadWhole | Failed | Listed | Unlisted
Deliver = Callable[[Item], Awaitable[None]]


def size_of(item: Item) -> int:
    """What an item weighs in a queue."""
    match item:
        case Got():
            return len(item.proven.record or b"")
        case Sliced():
            return sum(len(record.record) for record in item.slice.records)
        case Whole():
            return sum(len(record.record) for record in item.repo.records)
        case _:
            return 0


class Admission:
    """Lets a repository in that was read before its live events wait. For the I/O thread."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._guard: str | None = None

    async def admit(self, guard: str | None, _deliver: Deliver) -> None:
        """They wait now; `guard` is the rev that is indexed, which moves no more."""
        self._guard = guard
        self._open.set()

    async def wait(self) -> str | None:
        """Wait for that; returns the guard."""
        await self._open.wait()
        return self._guard


class Asking:
    """Asks. Every method delivers what came of it, and raises nothing.

    Args:
        outbound: the client.
        limits: of whole repositories.
        now: Unix seconds.
        pause: called before a slice of so many records of a backfill; waits for its turn.
    """

    def __init__(
        self,
        outbound: Outbound,
        limits: Limits,
        now: Callable[[], float],
        pause: Callable[[int], Awaitable[None]],
    ) -> None:
        self._outbound = outbound
        self._limits = limits
        self._now = now
        self._pause = pause

    async def record(self, job: int, account: Account, path: str, deliver: Deliver) -> None:
        """Ask for a record with its proof; delivers Got or Failed."""
        collection, _, rkey = path.partition("/")
        query = f"did={_q(account.did)}&collection={_q(collection)}&rkey={_q(rkey)}"
        url = f"{account.pds}/xrpc/com.atproto.sync.getRecord?{query}"
        try:
            key = _key(account.key)
            body = await self._get(url, RECORD_BYTES, RECORD)
            proven = proof.read(body, account.did, path, self._now(), key)
        except (OutboundError, WireError, Refused) as error:
            await deliver(_failed(job, error))
        else:
            await deliver(Got(job, proven))

    async def latest(self, job: int, account: Account, deliver: Deliver) -> None:
        """Ask whether a server has a repository; delivers Alive or Failed."""
        url = f"{account.pds}/xrpc/com.atproto.sync.getLatestCommit?did={_q(account.did)}"
        try:
            await self._get(url, LATEST_BYTES, LATEST)
        except (OutboundError, Refused) as error:
            await deliver(_failed(job, error))
        else:
            await deliver(Alive(job))

    async def repo(
        self,
        job: int,
        account: Account,
        guard: str | None,
        room: asyncio.Semaphore,
        patient: bool,
        deliver: Deliver,
    ) -> None:
        """Ask for a whole repository whose live events wait; delivers its slices and ReadWhole, or
        Failed.

        Args:
            job: what it is delivered as.
            account: see there.
            guard: the rev that is indexed: nothing older is of use.
            room: acquired before each slice; released by whoever has written one.
            patient: whether others have precedence.
            deliver: takes what comes.
        """
        try:
            with tempfile.TemporaryFile(dir=self._limits.folder) as file:
                read = await self._read(account, file)
                if guard is not None and read.signed.rev < guard:
                    await deliver(Failed(job, Failure("older_than_index"), read.signed.rev))
                else:
                    await self._hand_on(job, read, file.tell(), room, patient, deliver)
        except (OutboundError, WireError, Refused, OSError) as error:
            await deliver(_failed(job, error))

    async def backfill(
        self,
        job: int,
        account: Account,
        room: asyncio.Semaphore,
        admission: Admission,
        deliver: Deliver,
    ) -> None:
        """Ask for a whole repository whose live events go on. Delivers Whole for a small one, and
        for others Ready; once they are let in, its slices and ReadWhole. Or Failed.

        `admission` tells that its live events wait, the rest is as for `repo`.
        """
        try:
            with tempfile.TemporaryFile(dir=self._limits.folder) as file:
                read = await self._read(account, file)
                small = read.whole()
                if small is not None:
                    contents = await _checked(read)
                    await self._pause(len(small.records))
                    await deliver(Whole(job, small, contents, file.tell()))
                    return
                await deliver(Ready(job))
                guard = await admission.wait()
                if guard is None or read.signed.rev >= guard:
                    await self._hand_on(job, read, file.tell(), room, True, deliver)
                    return
        except (OutboundError, WireError, Refused, OSError) as error:
            await deliver(_failed(job, error))
            return
        # Its account went on writing while it was read; this time that waits.
        await self.repo(job, account, guard, room, True, deliver)

    async def _read(self, account: Account, file: IO[bytes]) -> RepoFile:
        """Have a repository in a file."""
        key = _key(account.key)
        blocks = CarFile(file, self._limits.bytes // _BYTES_A_BLOCK + 10)
        await self._download(account, blocks)
        return RepoFile(blocks, account.did, self._now(), key, self._limits.bytes)

    async def _hand_on(
        self,
        job: int,
        read: RepoFile,
        size: int,
        room: asyncio.Semaphore,
        patient: bool,
        deliver: Deliver,
    ) -> None:
        """Check all of a repository, then deliver it in parts."""
        contents = await _checked(read)
        for part in read.slices():
            await room.acquire()
            if patient:
                await self._pause(len(part.records))
            await deliver(Sliced(job, part))
        await deliver(ReadWhole(job, read.signed.rev, read.signed.data, contents, size))

    async def accounts(self, url: str, cursor: str | None, deliver: Deliver) -> None:
        """Ask a server for a page of its accounts; delivers Listed or Unlisted."""
        page = f"{url}/xrpc/com.atproto.sync.listRepos?limit={account_list.MOST}"
        page += "" if cursor is None else f"&cursor={quote(cursor, safe='')}"
        try:
            body = await self._get(page, LIST_BYTES, LIST)
            found = account_list.read(body, cursor)
        except (OutboundError, WireError, Refused) as error:
            await deliver(Unlisted(url, failure_of(error)))
        else:
            await deliver(Listed(url, *found))

    async def _download(self, account: Account, blocks: CarFile) -> None:
        url = f"{account.pds}/xrpc/com.atproto.sync.getRepo?did={_q(account.did)}"
        async with self._outbound.stream(
            url, limit_bytes=self._limits.bytes, seconds=self._limits.seconds, kind=REPO
        ) as answer:
            if answer.status != 200:
                raise Refused(answer.status, await _start_of(answer))
            async for piece in answer:
                blocks.feed(piece)
        blocks.end()

    async def _get(self, url: str, limit: int, kind: str) -> bytes:
        """The body of a success. Trying again is the queue's business."""
        response = await self._outbound.get(
            url, limit_bytes=limit, seconds=RECORD_SECONDS, kind=kind, tries=1
        )
        if response.status != 200:
            raise Refused(response.status, response.body[:ERROR_BYTES])
        return response.body


async def _checked(read: RepoFile) -> Contents:
    """Go through a file, with turns for others in between."""
    contents = Contents(0, 0)
    for part in read.check():
        contents = part
        await asyncio.sleep(0)
    return contents


async def _start_of(answer: Answer) -> bytes:
    start = b""
    async for piece in answer:
        start += piece[: ERROR_BYTES - len(start)]
        if len(start) >= ERROR_BYTES:
            break
    return start


def _key(text: str | None) -> PublicKey | None:
    return None if text is None else multikey.parse(text)


def _q(text: str) -> str:
    return quote(text, safe=":")


def _failed(job: int, error: OutboundError | WireError | Refused | OSError) -> Failed:
    return Failed(job, failure_of(error), str(error)[:300])
