"""Formats of strings in lexicons, and kinds of record keys.

Each format is a pair: a pattern that most values of the network match and that only valid ones can,
and a function that decides the rest. Sources: the atproto specification, "Lexicon" (section "String
Formats"), "Record Key" and the pages of the identifiers; RFC 5646 for languages, RFC 3986 for uris.
"""

import re
from collections.abc import Callable
from datetime import date
from typing import Final, NamedTuple

from actors.atproto import did, tid, uri

MAX_URI: Final = 8192
MAX_DATETIME: Final = 64


class Format(NamedTuple):
    """How a format is recognised: `common` matches many of the valid values, `is_valid` all."""

    common: re.Pattern[str]
    is_valid: Callable[[str], bool]


# The days that every month has; the others need a calendar.
_COMMON_DATETIME: Final = re.compile(
    r"[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,12})?Z"
)
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_PLC: Final = re.compile(r"did:plc:[a-z2-7]{24}")
_COMMON_HANDLE: Final = re.compile(r"[a-z0-9]{1,63}\.bsky\.social")
_COMMON_AT_URI: Final = re.compile(
    r"at://did:plc:[a-z2-7]{24}/app\.bsky\.[a-z]{1,20}\.[a-zA-Z]{1,40}/[a-zA-Z0-9_-]{1,64}"
)
_COMMON_SPACE: Final = re.compile(
    r"at://did:plc:[a-z2-7]{24}/space/[a-z]{1,20}\.[a-z]{1,20}\.[a-zA-Z]{1,40}/[a-zA-Z0-9_-]{1,64}"
)
_COMMON_CID: Final = re.compile(r"baf[ky]rei[a-z2-7]{52}")
_CID: Final = re.compile(r"(?!Qm[a-zA-Z0-9]{44}\Z)[a-zA-Z0-9+=]{8,256}")
_COMMON_NSID: Final = re.compile(r"[a-z]{1,20}(?:\.[a-z]{1,20}){1,4}\.[a-zA-Z]{1,40}")
_COMMON_TID: Final = re.compile(r"[2-7a-j][2-7a-z]{12}")
_COMMON_KEY: Final = re.compile(r"[a-zA-Z0-9_-]{1,512}")
_COMMON_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_COMMON_URI: Final = re.compile(r"https?://[!-.0-~][!-~]{0,2000}")
_URI: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:/*[^\s/]\S*")
# The tags that RFC 5646 keeps from older days although they break its own grammar.
_OLD_LANGUAGES: Final = (
    "en-gb-oed|i-ami|i-bnn|i-default|i-enochian|i-hak|i-klingon|i-lux|i-mingo|i-navajo|i-pwn|i-tao"
    "|i-tay|i-tsu|sgn-be-fr|sgn-be-nl|sgn-ch-de"
)
_LANGUAGE: Final = re.compile(
    r"(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"  # language, with extensions of it
    r"(?:-[a-z]{4})?"  # script
    r"(?:-(?:[a-z]{2}|[0-9]{3}))?"  # region
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[0-9a-wyz](?:-[a-z0-9]{2,8})+)*"  # extensions
    r"(?:-x(?:-[a-z0-9]{1,8})+)?"  # private use
    r"|x(?:-[a-z0-9]{1,8})+"
    rf"|{_OLD_LANGUAGES}",
    re.IGNORECASE | re.ASCII,
)


def is_datetime(text: str) -> bool:
    """Whether `text` meets RFC 3339, ISO 8601 and WHATWG HTML at once, as the protocol asks.

    So the `T` and the `Z` are capital, seconds and an offset are there, `-00:00` is no offset, and
    there is neither a year zero nor a leap second.
    """
    match = _DATETIME.fullmatch(text)
    if match is None or len(text) > MAX_DATETIME or text.endswith("-00:00"):
        return False
    try:
        date(*map(int, match.groups()))
    except ValueError:
        return False
    return True


def is_at_uri(text: str) -> bool:
    """Whether `text` names an account, a collection or a record, or a space or what is in one.

    A query, a fragment and a slash at the end are not allowed in records.
    """
    if len(text) > MAX_URI or not text.startswith("at://"):
        return False
    authority, *path = text[5:].split("/")
    if path and path[0] == "space":
        return did.is_valid(authority) and _is_in_space(path[1:])
    if not is_at_identifier(authority) or len(path) > 2:
        return False
    return not path or (is_nsid(path[0]) and all(map(uri.is_rkey, path[1:])))


def _is_in_space(path: list[str]) -> bool:
    """Whether `path` is the type and key of a space, and perhaps author, collection and key."""
    if len(path) == 5:
        return (
            _is_in_space(path[:2])
            and did.is_valid(path[2])
            and is_nsid(path[3])
            and uri.is_rkey(path[4])
        )
    return len(path) == 2 and is_nsid(path[0]) and uri.is_rkey(path[1])


def is_at_identifier(text: str) -> bool:
    """Whether `text` is a DID or a handle."""
    return did.is_valid(text) if text.startswith("did:") else did.is_handle(text)


def is_cid(text: str) -> bool:
    """Whether `text` could be a CID in some base; those of version 0 are not allowed."""
    return _CID.fullmatch(text) is not None


def is_uri(text: str) -> bool:
    """Whether `text` is a scheme, a colon and something more, without white space, of 8 KiB."""
    if len(text) > MAX_URI // 4 and len(text.encode("utf-8", "surrogatepass")) > MAX_URI:
        return False
    return _URI.fullmatch(text) is not None


def is_language(text: str) -> bool:
    """Whether `text` is a well-formed language tag."""
    return _LANGUAGE.fullmatch(text) is not None


def is_nsid(text: str) -> bool:
    """Whether `text` is an NSID."""
    # Lengths first: the cache over there must not keep hostile megabytes.
    return len(text) <= uri.MAX_NSID_LENGTH and uri.is_nsid(text)


def _is_space_ref(text: str) -> bool:
    return text.count("/") == 5 and "/space/" in text and is_at_uri(text)


FORMATS: Final[dict[str, Format]] = {
    "at-identifier": Format(_PLC, is_at_identifier),
    "at-uri": Format(_COMMON_AT_URI, is_at_uri),
    "cid": Format(_COMMON_CID, is_cid),
    "datetime": Format(_COMMON_DATETIME, is_datetime),
    "did": Format(_PLC, did.is_valid),
    "handle": Format(_COMMON_HANDLE, did.is_handle),
    "language": Format(_COMMON_LANGUAGE, is_language),
    "nsid": Format(_COMMON_NSID, is_nsid),
    "record-key": Format(_COMMON_KEY, uri.is_rkey),
    "space-ref": Format(_COMMON_SPACE, _is_space_ref),
    "tid": Format(_COMMON_TID, tid.is_valid),
    "uri": Format(_COMMON_URI, is_uri),
}

_KEYS: Final[dict[str, Callable[[str], object]]] = {
    "any": uri.is_rkey,
    "nsid": is_nsid,
    "tid": _COMMON_TID.fullmatch,
}


def record_key(kind: str) -> Callable[[str], object] | None:
    """What is true for the record keys of a kind (`tid`, `any`, `nsid`, `literal:...`).

    None where there is no such kind.
    """
    if kind.startswith("literal:"):
        return kind.removeprefix("literal:").__eq__
    return _KEYS.get(kind)
