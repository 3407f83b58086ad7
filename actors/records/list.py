"""`app.bsky.graph.list`: lists of accounts, for reading or for moderation."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source


def build(source: Source, data: Json) -> Row:
    """Make the row of a list."""
    values = (
        source.uri,
        source.cid,
        source.did,
        fields.text(data, "name"),
        fields.text(data, "purpose"),
        fields.optional_text(data, "description"),
        fields.blob_cid(data, "avatar"),
        fields.record_time(data, source),
    )
    return Row(values)


LIST = RecordType(
    collection="app.bsky.graph.list",
    table="lists",
    columns=(
        "uri",
        "cid",
        "creator_did",
        "name",
        "purpose",
        "description",
        "avatar_url",
        "created_at",
    ),
    build=build,
)
