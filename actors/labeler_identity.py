"""Where a labeler is, and the key of its labels: from its DID document.

Whoever looks labelers up is a `Lookup`. `DocumentLookup` asks the directory, or the host of a
did:web, each time; nothing is remembered here. What the resolver has found out already is `Known`.
"""

from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

import msgspec

from actors.atproto import did as dids
from actors.atproto import multikey
from actors.atproto.multikey import PublicKey
from actors.identity import document
from actors.outbound import Outbound
from actors.store.labelers import Identified

DOCUMENT_SECONDS: Final = 15.0
KNOWN_SECONDS: Final = 86_400.0
"""How old may be what the resolver found out. It looks every day, and when an event says so."""
SUBSCRIBE: Final = "/xrpc/com.atproto.label.subscribeLabels"
KIND: Final = "identity"
"""What the requests are counted as."""

_WEBSOCKET: Final = {"https": "wss", "http": "ws"}


class LabelerIdentity(NamedTuple):
    """A labeler: scheme, host and port of its service, and the key that signs its labels."""

    endpoint: str
    key: PublicKey

    @property
    def stream(self) -> str:
        """The address of its stream."""
        return self.endpoint + SUBSCRIBE


class Known(NamedTuple):
    """What is known of a labeler before anybody is asked, and for how many seconds that will do.

    With 0 it is asked for first, and this is what there is where nobody answers.
    """

    identity: LabelerIdentity
    seconds: float


class NoLabeler(Exception):
    """There is no labeler under a DID, as far as can be told. One line that says what is wrong."""


class NoAnswer(NoLabeler):
    """What answered was no directory, or a site in trouble: it says nothing of the labeler."""


class BadDocument(NoLabeler):
    """What was found is no document of this DID."""


class Lookup(Protocol):
    """Finds labelers."""

    async def __call__(self, did: str, /) -> LabelerIdentity:
        """The labeler of a DID.

        Raises NoLabeler where there is none, NoAnswer or OutboundError where that cannot be told
        now.
        """


class DocumentLookup:
    """Reads the DID document of a labeler.

    Args:
        outbound: asks for it.
        plc_url: the directory of did:plc.
        development: did:web may have `localhost` and a port, without TLS.
    """

    def __init__(self, outbound: Outbound, plc_url: str, *, development: bool) -> None:
        self._outbound = outbound
        self._plc = plc_url.rstrip("/")
        self._development = development

    async def __call__(self, did: str) -> LabelerIdentity:
        """See `Lookup`."""
        response = await self._outbound.get(
            self._url(did), limit_bytes=document.MAX_BYTES, seconds=DOCUMENT_SECONDS, kind=KIND
        )
        directory = dids.is_plc(did)
        if response.status in (404, 410) and not (directory and not _is_object(response.body)):
            raise NoLabeler("no directory knows it (any more)")
        if response.status != 200:
            raise NoAnswer(f"its DID document cannot be had: HTTP {response.status}")
        try:
            return labeler_of(response.body, did, development=self._development)
        except BadDocument as bad:
            if directory:
                raise NoAnswer(str(bad)) from None
            raise

    def _url(self, did: str) -> str:
        if dids.is_plc(did):
            return f"{self._plc}/{did}"
        if not dids.is_web(did):
            raise NoLabeler("its DID is neither did:plc nor did:web")
        host = unquote(did.removeprefix("did:web:"))
        local = host.partition(":")[0] == "localhost"
        if local and not self._development:
            raise NoLabeler("did:web of localhost is for development (network.allow_private_hosts)")
        return f"{'http' if local else 'https'}://{host}/.well-known/did.json"


def labeler_of(body: bytes, did: str, *, development: bool = False) -> LabelerIdentity:
    """The labeler in a DID document; `development` allows one without TLS. Raises NoLabeler."""
    try:
        found = document.read(body, did, development=development)
    except document.BadDocument as error:
        raise BadDocument(f"its DID document cannot be used: {error}") from None
    if found.labeler is None:
        raise NoLabeler("its DID document has no service #atproto_labeler that can be used")
    if found.label_key is None:
        raise NoLabeler("its DID document has no key #atproto_label that can be used")
    return _identity(found.labeler, found.label_key)


def known_of(found: Identified, *, development: bool = False) -> Known | None:
    """What the resolver found out, as far as it can be used: without TLS in development only."""
    if not (development or found.labeler.startswith("https:")):
        return None
    left = 0.0 if found.age is None else max(0.0, KNOWN_SECONDS - found.age)
    return Known(_identity(found.labeler, found.label_key), left)


def _identity(labeler: str, label_key: str) -> LabelerIdentity:
    scheme, _, rest = labeler.partition(":")
    return LabelerIdentity(f"{_WEBSOCKET[scheme]}:{rest}", multikey.parse(label_key))


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
