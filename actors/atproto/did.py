"""Syntax of DIDs and handles. Source: the atproto specification, "DID" and "Handle"."""

import re
from typing import Final

MAX_LENGTH: Final = 2048

_PLC: Final = re.compile(r"did:plc:[a-z2-7]{24}")
_WEB: Final = re.compile(
    r"did:web:(?=.{1,253}\Z)"
    r"(?:localhost(?:%3A[0-9]{1,5})?"
    r"|(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)"
)
_GENERAL: Final = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_HANDLE: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+"
    r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
)

_plc = _PLC.fullmatch
_general = _GENERAL.fullmatch


def is_plc(text: str) -> bool:
    """Whether `text` is a DID of the method plc: 24 characters of base32."""
    return _plc(text) is not None


def is_web(text: str) -> bool:
    """Whether `text` is a DID of the method web as the protocol allows it.

    A host name without path; a port (`%3A` and digits) for `localhost` only, as in development.
    """
    return _WEB.fullmatch(text) is not None


def is_valid(text: str) -> bool:
    """Whether `text` has the general syntax of a DID, whatever its method."""
    if _plc(text) is not None:
        return True
    return len(text) <= MAX_LENGTH and _general(text) is not None


def is_supported(text: str) -> bool:
    """Whether `text` is a DID of a method that the protocol blesses (plc or web)."""
    return is_plc(text) or is_web(text)


def is_handle(text: str) -> bool:
    """Whether `text` has the syntax of a handle."""
    return _HANDLE.fullmatch(text) is not None
