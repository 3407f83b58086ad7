"""`app.bsky.graph.listblock`: blocks of everyone on a list."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source, rebuilt_from


def build(source: Source, data: Json) -> Row:
    """Make the row of a list block."""
    subject = fields.key_text(data, "subject")
    author = fields.authority(subject, "subject")
    values = (source.uri, source.did, subject, fields.record_time(data, source))
    return Row(values, (source.did, subject), (), (author,))


LIST_BLOCK = RecordType(
    collection="app.bsky.graph.listblock",
    table="list_blocks",
    columns=("uri", "blocker_did", "list_uri", "created_at"),
    build=build,
    basis_sql=("blocker_did", "list_uri"),
    thing=("blocker_did", "list_uri"),
    rebuild=rebuilt_from(1, 2),
)
