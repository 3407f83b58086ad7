"""`app.bsky.graph.block`: blocks of accounts."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source, rebuilt_from


def build(source: Source, data: Json) -> Row:
    """Make the row of a block."""
    subject = fields.subject_did(data, "subject")
    values = (
        source.uri,
        source.did,
        subject,
        fields.record_time(data, source),
        source.commit_time,
        source.commit_seq,
        source.commit_rev,
    )
    return Row(values, (source.did, subject), (), (subject,))


BLOCK = RecordType(
    collection="app.bsky.graph.block",
    table="blocks",
    columns=(
        "uri",
        "blocker_did",
        "blocked_did",
        "created_at",
        "commit_time",
        "commit_seq",
        "commit_rev",
    ),
    build=build,
    basis_sql=("blocker_did", "blocked_did"),
    thing=("blocker_did", "blocked_did"),
    rebuild=rebuilt_from(1, 2),
)
