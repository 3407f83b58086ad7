"""A page of `com.atproto.sync.listRepos`. Pure."""

from typing import Any, Final, NamedTuple

import msgspec

from actors.atproto import did
from actors.atproto.errors import Reason, WireError

MOST: Final = 1_000
"""Accounts that are asked for at once."""
MAX_CURSOR: Final = 1_024


class Page(NamedTuple):
    """The accounts that are active, each once; how many others there were; the next cursor, None
    at the end.
    """

    dids: list[str]
    skipped: int
    cursor: str | None


def read(body: bytes, before: str | None) -> Page:
    """What a server answered to a question with the cursor `before`.

    Raises WireError(BAD_LIST) for what is no such list, is longer than what was asked for, or leads
    back to where it came from.
    """
    try:
        page = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(Reason.BAD_LIST, "it is no JSON") from error
    repos = page.get("repos") if isinstance(page, dict) else None
    if not isinstance(repos, list):
        raise WireError(Reason.BAD_LIST, "it has no repos")
    if len(repos) > MOST:
        raise WireError(Reason.BAD_LIST, f"{len(repos)} accounts at once")
    cursor = page.get("cursor")
    if cursor is not None and (not isinstance(cursor, str) or len(cursor) > MAX_CURSOR):
        raise WireError(Reason.BAD_LIST, "its cursor is no text, or too long")
    if cursor and cursor == before:
        raise WireError(Reason.BAD_LIST, "its cursor is that of the page before")
    dids = dict.fromkeys(found for each in repos if (found := _active(each)) is not None)
    return Page(list(dids), len(repos) - len(dids), cursor or None)


def _active(entry: Any) -> str | None:
    """The DID of an account that is active: all are of which nothing else is said."""
    if not isinstance(entry, dict) or entry.get("active", True) is not True:
        return None
    found = entry.get("did")
    return found if isinstance(found, str) and did.is_supported(found) else None
