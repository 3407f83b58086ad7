"""Rules of handles, and what the two ways from a handle to its DID answer.

Source: the atproto specification, "Handle".
"""

from collections.abc import Iterable
from typing import Final

from actors.atproto import did as dids

INVALID: Final = "handle.invalid"
"""What is shown of an account without a handle that was verified."""

WELL_KNOWN: Final = "/.well-known/atproto-did"
MAX_WELL_KNOWN_BYTES: Final = 2048
DNS_LABEL: Final = "_atproto."

_RESERVED: Final = frozenset(
    ("alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion")
)
_DEVELOPMENT: Final = "test"


def normalised(text: str) -> str | None:
    """A handle in small letters; None for what is none, as a DID, or a name that is not ASCII."""
    # Lowering may make ASCII of what is not, such as the sign of Kelvin.
    if not text.isascii() or not dids.is_handle(text):
        return None
    return text.lower()


def is_reserved(handle: str, *, development: bool = False) -> bool:
    """Whether nobody on the network can have such a handle; `.test` is for development."""
    top = handle.rpartition(".")[2].lower()
    return top in _RESERVED or (top == _DEVELOPMENT and not development)


def is_for_development(handle: str) -> bool:
    """Whether a handle is one of a development network, where nothing has TLS."""
    return handle.endswith(f".{_DEVELOPMENT}")


def of_texts(texts: Iterable[str]) -> list[str]:
    """The distinct DIDs that the texts at `_atproto.{handle}` name; there should be one at most."""
    found = (text.strip().removeprefix("did=") for text in texts if text.startswith("did="))
    return list(dict.fromkeys(did for did in found if dids.is_valid(did)))


def of_well_known(body: bytes) -> str | None:
    """The DID in the answer of a site; None where there is none in its first line."""
    if len(body) > MAX_WELL_KNOWN_BYTES:
        return None
    line = body.strip().split(b"\n", 1)[0].strip()
    text = line.decode("ascii", "replace")
    return text if dids.is_valid(text) else None
