"""`at://` uris, collections (NSIDs) and record keys.

Sources: the atproto specification, "AT URI scheme", "NSID" and "Record Key".
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from actors.atproto import did
from actors.atproto.errors import Reason, WireError, shorten

MAX_URI_LENGTH: Final = 8192
MAX_NSID_LENGTH: Final = 317

_NSID: Final = re.compile(
    r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+"
    r"\.[a-zA-Z][a-zA-Z0-9]{0,62}"
)
_RKEY: Final = re.compile(r"[A-Za-z0-9._:~-]{1,512}")
# Nearly every subject of the network has this form; the general way is some three times slower.
_COMMON: Final = re.compile(
    r"at://(did:plc:[a-z2-7]{24})/((?:app\.bsky|chat\.bsky)\.[a-z]{1,20}\.[a-zA-Z]{1,40})"
    r"/([A-Za-z0-9_~-][A-Za-z0-9._:~-]{0,511})"
)

_rkey = _RKEY.fullmatch


class Uri(NamedTuple):
    """The parts of a record's uri; `str()` puts them together again."""

    authority: str
    collection: str
    rkey: str

    def __str__(self) -> str:
        return f"at://{self.authority}/{self.collection}/{self.rkey}"


@lru_cache(maxsize=4096)
def is_nsid(text: str) -> bool:
    """Whether `text` has the syntax of a namespaced identifier, such as `app.bsky.feed.post`."""
    # The authority (all but the last segment) is at most 253 characters long.
    return (
        len(text) <= MAX_NSID_LENGTH
        and _NSID.fullmatch(text) is not None
        and text.rindex(".") <= 253
    )


def is_rkey(text: str) -> bool:
    """Whether `text` has the syntax of a record key."""
    return _rkey(text) is not None and text != "." and text != ".."


def split_path(path: str) -> tuple[str, str] | None:
    """Collection and record key of a path in a repository; None where the syntax is wrong."""
    collection, slash, rkey = path.partition("/")
    # Lengths first: the cache of is_nsid must not keep hostile megabytes.
    if slash and len(collection) <= MAX_NSID_LENGTH and is_nsid(collection) and is_rkey(rkey):
        return collection, rkey
    return None


def parse(text: object) -> Uri:
    """The parts of a record's uri, strictly: DID or handle, collection, record key, nothing more.

    Raises WireError(BAD_URI).
    """
    if type(text) is str:
        match = _COMMON.fullmatch(text)
        if match is not None:
            return Uri._make(match.groups())
        if text.startswith("at://") and len(text) <= MAX_URI_LENGTH:
            authority, slash, path = text[5:].partition("/")
            parts = split_path(path) if slash else None
            if parts is not None and (did.is_valid(authority) or did.is_handle(authority)):
                return Uri(authority, *parts)
    raise WireError(Reason.BAD_URI, f"not the uri of a record: {shorten(text)}")


def make(authority: str, collection: str, rkey: str) -> str:
    """The uri of a record."""
    return f"at://{authority}/{collection}/{rkey}"
