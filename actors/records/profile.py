"""`app.bsky.actor.profile`: what an account says of itself, kept in its `users` row."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source


def build(source: Source, data: Json) -> Row:
    """Make the profile columns of a user; the handle is never a profile's to set."""
    created = fields.parse_time(data.get("createdAt"))
    if created != fields.record_time(data, source):
        # A users row may be made by whoever mentions the DID first: without a date of its own that
        # holds it has the same one whoever that was.
        created = 0
    values = (
        source.did,
        fields.optional_text(data, "displayName"),
        fields.blob_cid(data, "avatar"),
        fields.blob_cid(data, "banner"),
        fields.optional_text(data, "description"),
        fields.encode_json(data),
        fields.optional_json(fields.optional_mapping(data, "pinnedPost")),
        created,
    )
    return Row(values)


def key(_uri: str, did: str, _rkey: str) -> str:
    """Key of the row: the account."""
    return did


def cleared(did: str) -> Row:
    """Make the row of an account that says nothing of itself any more."""
    return Row((did, None, None, None, None, None, None, 0))


PROFILE = RecordType(
    collection="app.bsky.actor.profile",
    table="users",
    columns=(
        "did",
        "display_name",
        "avatar_url",
        "banner_url",
        "description",
        "profile_record",
        "pinned_post",
        "created_at",
    ),
    build=build,
    key_column="did",
    key=key,
    only_key="self",
    cleared=cleared,
)
