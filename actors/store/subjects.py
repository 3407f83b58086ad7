"""What an operator names: a DID, a record's uri, or a handle that stands for a DID."""

from typing import Any, Final

from psycopg import Connection

from actors.atproto import did as dids
from actors.atproto import uri as uris
from actors.atproto.errors import WireError

INVALID_HANDLE: Final = "handle.invalid"
# What can be a key of the index; more than any real uri has.
MAX_BYTES: Final = 2_000


class BadSubject(Exception):
    """What was given names no account and no record. One line that says what to give instead."""


def is_did(subject: str) -> bool:
    """Whether a subject is an account, not a record."""
    return subject.startswith("did:")


def did_of(subject: str) -> str:
    """Return the DID of a subject: its own, or that of the record's author."""
    return subject if is_did(subject) else subject.split("/", 3)[2]


def resolve(connection: Connection[Any], given: str, *, only_accounts: bool = False) -> str:
    """Return the DID or the uri (with a DID in it) that is meant.

    A handle is looked for among the users of the index; nobody outside is asked. Raises BadSubject.
    """
    text = given.strip()
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise BadSubject(f"{text[:40]!r}... is longer than the {MAX_BYTES} bytes of a key")
    account = text.removeprefix("at://").rstrip("/")
    if not text.startswith("at://") or "/" not in account:
        return _account(connection, account, given)
    if only_accounts:
        raise BadSubject(f"{text!r} is a record: give the DID or the handle of an account")
    try:
        parsed = uris.parse(text)
    except WireError:
        raise BadSubject(f"{text!r} is no uri of a record: write at://DID/COLLECTION/KEY") from None
    return uris.make(_account(connection, parsed.authority, given), parsed.collection, parsed.rkey)


def _account(connection: Connection[Any], text: str, given: str) -> str:
    if text.startswith("did:"):
        if dids.is_valid(text):
            return text
        raise BadSubject(f"{text!r} is no DID: write it like did:plc:abc or did:web:example.com")
    handle = text.removeprefix("@")
    if not dids.is_handle(handle):
        raise BadSubject(f"{given!r} is no DID, no at:// uri and no handle")
    if handle.lower() == INVALID_HANDLE:
        raise BadSubject(f"{INVALID_HANDLE} stands for every account without a handle: give a DID")
    rows = connection.execute(
        "SELECT did FROM users WHERE handle = ANY(%s) ORDER BY did LIMIT 3",
        [[handle, handle.lower()]],
    ).fetchall()
    if not rows:
        raise BadSubject(f"no user of this index has the handle {handle}: give the DID")
    if len(rows) > 1:
        raise BadSubject(
            f"the handle {handle} stands for more than one user"
            f" ({', '.join(did for (did,) in rows)}): give the DID"
        )
    return str(rows[0][0])
