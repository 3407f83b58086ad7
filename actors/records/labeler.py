"""`app.bsky.labeler.service`: an account declares that it is a labeler."""

from actors.records import fields
from actors.records.record import (
    SUBJECT_COUNTS,
    Basis,
    Effects,
    Json,
    RecordType,
    Row,
    Source,
)


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


def effects(uri: str, _basis: Basis) -> Effects:
    """Keep a count of the labeler's likes."""
    return Effects(touches=((SUBJECT_COUNTS, uri),))


LABELER = RecordType(
    collection="app.bsky.labeler.service",
    table="labeler_services",
    columns=("uri", "cid", "creator_did", "policies", "created_at"),
    build=build,
    effects=effects,
    only_key="self",
)
