"""Asks the network who an account is: its document, and where the handle in it leads.

Runs in an I/O thread. Nothing is remembered of documents, since the table of identities is that
memory; of handles the answers of the last minutes are, within a bound, so that any number of
accounts that name one handle ask its host once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from actors.atproto import did as dids
from actors.identity import handles
from actors.identity.document import MAX_BYTES, BadDocument, Document, read
from actors.identity.verdict import Missing, Nowhere, Outcome, Points, Silent, Verdict, judge
from actors.outbound import Kind, Outbound, OutboundError

PLC: Final = "plc"
WEB: Final = "web"
TXT: Final = "txt"
WELL_KNOWN: Final = "handle"
KINDS: Final = (PLC, WEB, TXT, WELL_KNOWN)
"""What requests are counted as."""

_SECONDS: Final = 10.0
# These say nothing of what was asked for: it was not even asked, or its turn did not come.
_HALTS: Final = frozenset((Kind.PAUSED, Kind.BREAKER_OPEN, Kind.NEIGHBOURS, Kind.BUSY))
# Nor had the host itself failed before, or asked for a pause.
_NOT_ASKED: Final = frozenset((Kind.NEIGHBOURS, Kind.BUSY))
_NOT_FOUND: Final = Missing(Outcome.NOT_FOUND, "the directory says HTTP 404")
_TOMBSTONED: Final = Missing(Outcome.TOMBSTONED, "the directory says HTTP 410")


class Question(NamedTuple):
    """Whose identity is asked for.

    `held` is the handle that the account is shown with, `silence` the seconds since the last
    verdict, `fresh` says that the identity changed, so that nothing from before counts, `known`
    that a document of it was seen.
    """

    did: str
    held: str = handles.INVALID
    silence: float = 0.0
    fresh: bool = False
    known: bool = False


class Halt(NamedTuple):
    """The directory is to be left alone for so many seconds: nothing was found out."""

    detail: str
    seconds: float


class Answer(NamedTuple):
    """What came of a question.

    `directory` and `names` say whether the directory of did:plc and the name system answered, where
    they were asked.
    """

    did: str
    result: Verdict | Halt
    directory: bool | None = None
    names: bool | None = None


class _Unsure(NamedTuple):
    """The site of a handle names this DID, and the name system is silent.

    It would have the last word, so what the site says counts for its DID, and not against others.
    """

    did: str
    silent: Silent


_Lead = Points | Nowhere | Silent | _Unsure


class _Known(NamedTuple):
    """Where a handle leads; `began` and `until` in seconds of the clock."""

    answer: _Lead
    began: float
    until: float


class _Names:
    """Whether the name system answered within one question."""

    answered: bool | None = None


class Resolving:
    """Resolves identities, any number at a time.

    Args:
        directory: the client that asks the directory of did:plc, at its own rate.
        network: the client that asks all others.
        plc_url: the directory.
        now: tells the time in seconds; only differences count.
        development: `.test` is a handle, and what has no TLS may be asked.
        grace_seconds: for how long a handle outlives the silence of its host.
        memory: handles that are remembered.
        memory_seconds: for how long.
    """

    def __init__(
        self,
        directory: Outbound,
        network: Outbound,
        *,
        plc_url: str,
        now: Callable[[], float],
        development: bool = False,
        grace_seconds: float = 259_200.0,
        memory: int = 10_000,
        memory_seconds: float = 120.0,
    ) -> None:
        self._directory = directory
        self._network = network
        self._plc = plc_url.rstrip("/")
        self._now = now
        self._development = development
        self._grace = grace_seconds
        self._most = memory
        self._seconds = memory_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, tuple[float, asyncio.Future[_Lead]]] = {}

    @property
    def remembered(self) -> int:
        """How many handles are remembered."""
        return len(self._known)

    async def resolve(self, question: Question) -> Answer:
        """Find out who an account is."""
        did, names = question.did, _Names()
        document = await self._document(did)
        if isinstance(document, Halt):
            return Answer(did, document, directory=False)
        if dids.is_plc(did) and document == _NOT_FOUND and _was_there(question):
            document = Silent("the directory does not know an account that it has told of")
        directory = not isinstance(document, Silent) if dids.is_plc(did) else None
        handle = None
        if isinstance(document, Document) and document.claimed is not None:
            claimed = document.claimed
            if not handles.is_reserved(claimed, development=self._development):
                since = self._now() if question.fresh else float("-inf")
                handle = _for(did, await self._handle(claimed, since, names))
        verdict = judge(
            did,
            question.held,
            document,
            handle,
            development=self._development,
            silence=question.silence,
            grace=self._grace,
        )
        return Answer(did, verdict, directory, names.answered)

    # --- documents

    async def _document(self, did: str) -> Document | Missing | Silent | Halt:
        if dids.is_plc(did):
            return await self._of_directory(did)
        host = did.removeprefix("did:web:")
        local = host.partition("%3A")[0] == "localhost"
        if not dids.is_web(did) or (local and not self._development):
            return Missing(Outcome.UNSUPPORTED, f"{did[:80]!a} is of no method that is resolved")
        return await self._of_site(did, host, "http" if local else "https")

    async def _of_directory(self, did: str) -> Document | Missing | Silent | Halt:
        try:
            response = await self._directory.get(
                f"{self._plc}/{did}", limit_bytes=MAX_BYTES, seconds=_SECONDS, kind=PLC
            )
        except OutboundError as error:
            # Whatever is wrong with one directory for all is no fault of the account.
            if error.kind in _HALTS or error.status == 429:
                return Halt(str(error), error.retry_after)
            return Silent(str(error), error.retry_after)
        if response.status in (404, 410) and _is_object(response.body):
            return _TOMBSTONED if response.status == 410 else _NOT_FOUND
        if response.status != 200:
            return Silent(f"the directory answered with HTTP {response.status}")
        try:
            return read(response.body, did, development=self._development)
        except BadDocument as bad:
            return Silent(f"the directory's answer cannot be used: {bad}")

    async def _of_site(self, did: str, host: str, scheme: str) -> Document | Missing | Silent:
        url = f"{scheme}://{host.replace('%3A', ':')}/.well-known/did.json"
        try:
            response = await self._network.get(
                url, limit_bytes=MAX_BYTES, seconds=_SECONDS, kind=WEB
            )
        except OutboundError as error:
            if error.kind.passing:
                return Silent(str(error), error.retry_after)
            absent = error.kind is Kind.NO_SUCH_NAME
            return Missing(Outcome.NOT_FOUND if absent else Outcome.BAD_DOCUMENT, str(error))
        if response.status in (404, 410):
            return Missing(Outcome.NOT_FOUND, f"its site says HTTP {response.status}")
        if response.status != 200:
            return Silent(f"its site answered with HTTP {response.status}")
        try:
            return read(response.body, did, development=self._development)
        except BadDocument as bad:
            return Missing(Outcome.BAD_DOCUMENT, f"its site's answer cannot be used: {bad}")

    # --- handles

    async def _handle(self, handle: str, since: float, names: _Names) -> _Lead:
        """Where a handle leads, not from before `since`; whoever asks meanwhile gets the same."""
        known = self._known.get(handle)
        if known is not None and known.began >= since and known.until > self._now():
            return known.answer
        began, asking = self._asking.get(handle, (0.0, None))
        if asking is not None and began >= since:
            return await asyncio.shield(asking)
        began = self._now()
        future: asyncio.Future[_Lead] = asyncio.get_running_loop().create_future()
        self._asking[handle] = (began, future)
        try:
            answer = await self._ask(handle, names)
            self._remember(handle, _Known(answer, began, self._now() + self._seconds))
            future.set_result(answer)
            return answer
        finally:
            if self._asking.get(handle, (0.0, None))[1] is future:
                del self._asking[handle]
            future.cancel()

    def _remember(self, handle: str, known: _Known) -> None:
        self._known[handle] = known
        self._known.move_to_end(handle)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    async def _ask(self, handle: str, names: _Names) -> _Lead:
        """The name system first; where it knows nothing, or does not answer, the site."""
        of_names: Silent | None = None
        found: list[str] = []
        try:
            texts = await self._network.txt(f"{handles.DNS_LABEL}{handle}", kind=TXT)
            found = handles.of_texts(texts)
            names.answered = True
        except OutboundError as error:
            if error.kind.passing:
                names.answered = False
                of_names = Silent(str(error), error.retry_after)
        if len(found) > 1:
            return Nowhere(Outcome.AMBIGUOUS, f"{handle} leads to {len(found)} DIDs")
        if found:
            return Points(found[0])
        of_site = await self._ask_site(handle)
        if of_names is None:
            return of_site
        return _Unsure(of_site.did, of_names) if isinstance(of_site, Points) else of_names

    async def _ask_site(self, handle: str) -> Points | Nowhere | Silent:
        plain = self._development and handles.is_for_development(handle)
        url = f"{'http' if plain else 'https'}://{handle}{handles.WELL_KNOWN}"
        try:
            response = await self._network.get(
                url, limit_bytes=handles.MAX_WELL_KNOWN_BYTES, seconds=_SECONDS, kind=WELL_KNOWN
            )
        except OutboundError as error:
            if error.kind.passing:
                return Silent(str(error), error.retry_after, error.kind not in _NOT_ASKED)
            return Nowhere(Outcome.UNRESOLVED, str(error))
        # The site refuses us, whoever asks; it says nothing of the handle.
        if response.status in (401, 403):
            return Silent(f"{handle} answered with HTTP {response.status}")
        found = handles.of_well_known(response.body) if response.status == 200 else None
        if found is None:
            return Nowhere(Outcome.UNRESOLVED, f"{handle} names no DID (HTTP {response.status})")
        return Points(found)


def _for(did: str, lead: _Lead) -> Points | Nowhere | Silent:
    """What the lead of a handle means for an account."""
    if isinstance(lead, _Unsure):
        return Points(did) if lead.did == did else lead.silent
    return lead


def _was_there(question: Question) -> bool:
    """Whether the directory has told of it before. An entry of did:plc never ceases (a deleted one
    is a tombstone): a directory that lacks it is behind, or restored from an old copy.
    """
    return question.known or question.held != handles.INVALID


def _is_object(body: bytes) -> bool:
    """Whether an answer is a directory's own: its errors are JSON, those of a proxy are not."""
    with suppress(msgspec.DecodeError, RecursionError, ValueError):
        return isinstance(msgspec.json.decode(body), dict)
    return False
