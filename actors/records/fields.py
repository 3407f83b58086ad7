"""Reading the fields of a record: the types the index needs, the times, and limits on keys.

Every reader takes the record (or a part of it) and a field's name, and raises Drop when the field
is not what the index needs. Values come from `datamodel`, so NUL characters are gone already.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec

from actors.atproto import datetimes, did, tid, uri
from actors.atproto.errors import WireError
from actors.drops import Drop, DropReason
from actors.records.record import Json, Source, Value, Wait

# A string longer than this cannot stand in a key: a B-tree entry holds about a third of a page.
MAX_KEY_BYTES: Final = 2_000
# A record may be dated a little ahead of its commit: clocks differ.
MAX_AHEAD_MICROS: Final = 5 * 60 * 1_000_000
POST_COLLECTION: Final = "/app.bsky.feed.post/"
REPOST: Final = "app.bsky.feed.repost"
# A hostile TID may name a time past the year 9999, which few programs can read.
LATEST_MICROS: Final = 253_402_300_799_000_000

encode_json = msgspec.json.Encoder().encode


def invalid(field: str, problem: str) -> Drop:
    """Return the Drop for a field the index cannot use."""
    return Drop(DropReason.INVALID_RECORD, f"{field} {problem}")


def text(data: Json, field: str) -> str:
    """Read a string; raises Drop when it is missing or something else."""
    value = data.get(field)
    if type(value) is str:
        return value
    raise invalid(field, "is missing" if value is None else "is not a string")


def optional_text(data: Json, field: str) -> str | None:
    """Read a string that may be missing; raises Drop when it is something else."""
    value = data.get(field)
    if value is None or type(value) is str:
        return value
    raise invalid(field, "is not a string")


def key_text(data: Json, field: str) -> str:
    """Read a string that goes into a key; raises Drop when it is over 2,000 bytes."""
    return check_key(text(data, field), field)


def check_key(value: str, field: str) -> str:
    """Return `value`; raises Drop when it is too long to be part of a key."""
    if len(value) > MAX_KEY_BYTES // 4 and len(value.encode()) > MAX_KEY_BYTES:
        raise Drop(DropReason.KEY_TOO_LONG, f"{field} has over {MAX_KEY_BYTES} bytes")
    return value


def mapping(data: Json, field: str) -> Json:
    """Read a map; raises Drop when it is missing or something else."""
    value = data.get(field)
    if type(value) is dict:
        return value
    raise invalid(field, "is missing" if value is None else "is not an object")


def optional_mapping(data: Json, field: str) -> Json | None:
    """Read a map that may be missing; raises Drop when it is something else."""
    value = data.get(field)
    if value is None or type(value) is dict:
        return value
    raise invalid(field, "is not an object")


def optional_array(data: Json, field: str) -> list[Any] | None:
    """Read an array that may be missing; raises Drop when it is something else."""
    value = data.get(field)
    if value is None or type(value) is list:
        return value
    raise invalid(field, "is not an array")


def optional_json(value: Any) -> bytes | None:
    """Encode a value for a JSON column; None stays NULL."""
    return None if value is None else encode_json(value)


def subject_did(data: Json, field: str) -> str:
    """Read a DID; raises Drop when it is none, or too long for a key."""
    value = key_text(data, field)
    if not did.is_valid(value):
        raise invalid(field, "is not a DID")
    return value


def authority(subject: str, field: str) -> str:
    """Return the DID of a record's at-uri; raises Drop when `subject` is not one of a record."""
    try:
        owner = uri.parse(subject).authority
    except WireError as error:
        raise invalid(field, "is not the at-uri of a record") from error
    if not owner.startswith("did:"):
        raise invalid(field, "does not name its repository by DID")
    return owner


def strong_ref(data: Json, field: str) -> tuple[str, str, str]:
    """Read a reference to a record: its uri, its CID (text), its repository's DID."""
    reference = mapping(data, field)
    subject = key_text(reference, "uri")
    return subject, text(reference, "cid"), authority(subject, f"{field}.uri")


def owner(subject: str) -> str:
    """Return the DID of a record's at-uri that was checked before."""
    return subject.split("/", 3)[2]


def is_post(subject: str) -> bool:
    """Whether a record's uri is a post's."""
    return POST_COLLECTION in subject


def via(data: Json) -> tuple[bytes | None, str | None]:
    """Read the reference to the repost that led here: as JSON, and its uri where it names one."""
    reference = optional_mapping(data, "via")
    if reference is None:
        return None, None
    through = reference.get("uri")
    if type(through) is not str:
        return encode_json(reference), None
    return encode_json(reference), check_key(through, "via.uri")


def via_uri(stored: Value) -> str | None:
    """Return the uri in a stored `via`."""
    if type(stored) is not bytes:
        return None
    through = msgspec.json.decode(stored).get("uri")
    return through if type(through) is str else None


def reaction_waits(
    kind: str, user: str, subject: str, through: str | None
) -> tuple[tuple[Wait, ...], bool]:
    """What a like or a repost needs to be there, and whether it may have to be told of.

    `through` is the uri of the repost by which its author came to the subject.
    """
    waits = [Wait(subject, kind)]
    notifies = owner(subject) != user
    if through is not None and _is_repost(through):
        waits.append(Wait(through, f"{kind}-via"))
        notifies = notifies or owner(through) != user
    return tuple(waits), notifies


def _is_repost(subject: str) -> bool:
    try:
        parsed = uri.parse(subject)
    except WireError:
        return False  # a hint at most: the record itself says what it is about
    return parsed.collection == REPOST and parsed.authority.startswith("did:")


def blob_cid(data: Json, field: str) -> str | None:
    """Read a blob's CID (text); None when there is no blob; raises Drop for anything else."""
    blob = optional_mapping(data, field)
    if blob is None:
        return None
    reference = blob.get("ref")
    link = reference.get("$link") if type(reference) is dict else blob.get("cid")
    if type(link) is str:
        return link
    raise invalid(field, "is not a blob")


def gated_post(data: Json, source: Source) -> str:
    """Read the post a gate is for; raises Drop unless it is the author's, under the gate's key."""
    post = key_text(data, "post")
    if post != f"at://{source.did}/app.bsky.feed.post/{source.rkey}":
        authority(post, "post")
        raise Drop(DropReason.NOT_AUTHORIZED, "post is not the author's post with the gate's key")
    return post


def parse_time(value: object) -> int | None:
    """Microseconds since 1970 of an RFC 3339 time with any offset; None when it is not one."""
    moment = datetimes.parse(value)
    return None if moment is None else datetimes.to_microseconds(moment)


def record_time(data: Json, source: Source, field: str = "createdAt") -> int:
    """Return the record's time in microseconds, or its commit's.

    The commit's where the record has none, an invalid one, or one more than five minutes ahead.
    """
    value = parse_time(data.get(field))
    if value is None or value > source.commit_time + MAX_AHEAD_MICROS:
        return source.commit_time
    return value


@lru_cache(maxsize=4096)
def key_time(subject: str) -> int:
    """Microseconds since 1970 that a uri's record key tells when it is a TID, else 0.

    Dates rows that any of several records may bring about, in whatever order they arrive.
    """
    key = subject[subject.rfind("/") + 1 :]
    if not tid.is_valid(key):
        return 0
    return min(tid.to_microseconds(key), LATEST_MICROS)
