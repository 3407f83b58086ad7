"""`app.bsky.labeler.service`: an account declares that it is a labeler."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source, counts_likes


def build(source: Source, data: Json) -> Row:
    """Make the row of a labeler service."""
    values = (
        source.uri,
        source.cid,
        source.did,
        fields.encode_json(fields.mapping(data, "policies")),
        fields.record_time(data, source),
    )
    return Row(values)


LABELER = RecordType(
    collection="app.bsky.labeler.service",
    table="labeler_services",
    columns=("uri", "cid", "creator_did", "policies", "created_at"),
    build=build,
    effects=counts_likes,
    only_key="self",
)
