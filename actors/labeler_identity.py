"""Where a labeler is, and the key of its labels: from its DID document.

Whoever looks labelers up is a `Lookup`. `DocumentLookup` asks the directory, or the host of a
did:web, each time; nothing is remembered here.
"""

from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

from actors.atproto import did as dids
from actors.atproto import multikey
from actors.atproto.multikey import PublicKey
from actors.identity import document
from actors.outbound import Outbound

DOCUMENT_SECONDS: Final = 15.0
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


class NoLabeler(Exception):
    """There is no labeler under a DID, as far as can be told. One line that says what is wrong."""


class Lookup(Protocol):
    """Finds labelers."""

    async def __call__(self, did: str, /) -> LabelerIdentity:
        """The labeler of a DID.

        Raises NoLabeler where there is none, OutboundError where that cannot be told now.
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
        if response.status in (404, 410):
            raise NoLabeler("no directory knows it (any more)")
        if response.status != 200:
            raise NoLabeler(f"its DID document cannot be had: HTTP {response.status}")
        return labeler_of(response.body, did, development=self._development)

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
        raise NoLabeler(f"its DID document cannot be used: {error}") from None
    if found.labeler is None:
        raise NoLabeler("its DID document has no service #atproto_labeler that can be used")
    if found.label_key is None:
        raise NoLabeler("its DID document has no key #atproto_label that can be used")
    scheme, _, rest = found.labeler.partition(":")
    return LabelerIdentity(f"{_WEBSOCKET[scheme]}:{rest}", multikey.parse(found.label_key))
