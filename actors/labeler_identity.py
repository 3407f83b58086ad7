"""Where a labeler is, and the key of its labels: from its DID document.

Whoever looks labelers up is a `Lookup`. `DocumentLookup` asks the directory, or the host of a
did:web, each time; nothing is remembered here.
"""

from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

import msgspec

from actors.atproto import did as dids
from actors.atproto import multikey
from actors.atproto.errors import WireError, shorten
from actors.atproto.multikey import PublicKey
from actors.outbound import Outbound, OutboundError
from actors.outbound import target as targets

MAX_DOCUMENT: Final = 65_536
DOCUMENT_SECONDS: Final = 15.0
SUBSCRIBE: Final = "/xrpc/com.atproto.label.subscribeLabels"
KIND: Final = "identity"
"""What the requests are counted as."""

_KEY: Final = "atproto_label"
_SERVICE: Final = "atproto_labeler"
_SERVICE_TYPE: Final = "AtprotoLabeler"
_WEBSOCKET: Final = {"https": "wss", "http": "ws", "wss": "wss", "ws": "ws"}


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

    async def __call__(self, did: str) -> LabelerIdentity:
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
            self._url(did), limit_bytes=MAX_DOCUMENT, seconds=DOCUMENT_SECONDS, kind=KIND
        )
        if response.status in (404, 410):
            raise NoLabeler("no directory knows it (any more)")
        if response.status != 200:
            raise NoLabeler(f"its DID document cannot be had: HTTP {response.status}")
        return labeler_of(response.body, did)

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


def labeler_of(document: bytes, did: str) -> LabelerIdentity:
    """The labeler in a DID document. Raises NoLabeler."""
    try:
        body: Any = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoLabeler("its DID document is no JSON") from None
    if type(body) is not dict or body.get("id") != did:
        raise NoLabeler("its DID document is that of somebody else")
    service = _entry(body.get("service"), _SERVICE, did)
    if service is None or service.get("type") != _SERVICE_TYPE:
        raise NoLabeler(f"its DID document has no service #{_SERVICE}")
    method = _entry(body.get("verificationMethod"), _KEY, did)
    if method is None:
        raise NoLabeler(f"its DID document has no key #{_KEY}")
    return LabelerIdentity(_endpoint(service.get("serviceEndpoint")), _key(method))


def _entry(entries: Any, fragment: str, did: str) -> dict[str, Any] | None:
    """The first entry with this fragment, which may stand alone or behind the DID."""
    for entry in entries if type(entries) is list else ():
        if type(entry) is dict and entry.get("id") in (f"#{fragment}", f"{did}#{fragment}"):
            return entry
    return None


def _endpoint(value: Any) -> str:
    try:
        target = targets.parse(value if type(value) is str else "")
    except OutboundError as error:
        raise NoLabeler(f"its service is at no usable address: {error}") from None
    return f"{_WEBSOCKET[target.scheme]}://{target.authority}"


def _key(method: dict[str, Any]) -> PublicKey:
    text, kind = method.get("publicKeyMultibase"), method.get("type")
    if type(text) is not str or type(kind) is not str:
        raise NoLabeler(f"its key #{_KEY} is {shorten(text)}")
    try:
        return multikey.parse(text, kind)
    except WireError as error:
        raise NoLabeler(f"its key #{_KEY} cannot be used: {error.detail}") from None
