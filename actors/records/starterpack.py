"""`app.bsky.graph.starterpack`: packs of accounts and feeds to start with."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source


def build(source: Source, data: Json) -> Row:
    """Make the row of a starter pack."""
    list_uri = fields.optional_text(data, "list")
    if list_uri is not None:
        fields.check_key(list_uri, "list")
    values = (
        source.uri,
        source.cid,
        source.did,
        fields.text(data, "name"),
        fields.optional_text(data, "description"),
        list_uri,
        fields.encode_json(fields.optional_array(data, "feeds") or []),
        fields.record_time(data, source),
    )
    return Row(values)


STARTER_PACK = RecordType(
    collection="app.bsky.graph.starterpack",
    table="starter_packs",
    columns=(
        "uri",
        "cid",
        "creator_did",
        "name",
        "description",
        "list_uri",
        "feeds",
        "created_at",
    ),
    build=build,
)
