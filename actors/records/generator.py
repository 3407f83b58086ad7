"""`app.bsky.feed.generator`: feeds made by a service."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source, counts_likes


def build(source: Source, data: Json) -> Row:
    """Make the row of a feed generator."""
    values = (
        source.uri,
        source.cid,
        source.did,
        fields.key_text(data, "did"),
        fields.text(data, "displayName"),
        fields.optional_text(data, "description"),
        fields.blob_cid(data, "avatar"),
        fields.record_time(data, source),
    )
    return Row(values)


GENERATOR = RecordType(
    collection="app.bsky.feed.generator",
    table="feed_generators",
    columns=(
        "uri",
        "cid",
        "creator_did",
        "did",
        "display_name",
        "description",
        "avatar_url",
        "created_at",
    ),
    build=build,
    effects=counts_likes,
)
