"""`app.bsky.graph.verification`: an account vouches for another's handle and name."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source, Value


def build(source: Source, data: Json) -> Row:
    """Make the row of a verification, its issuer included."""
    subject = fields.subject_did(data, "subject")
    created = fields.record_time(data, source)
    values = (
        source.uri,
        source.cid,
        subject,
        fields.key_text(data, "handle"),
        created,
        created,
        source.did,
    )
    return rebuild(values, source.cid)._replace(subjects=(subject,))


def rebuild(values: tuple[Value, ...], _cid: str) -> Row:
    """Make the row of a verification that was kept aside."""
    subject, issuer = values[2], values[6]
    return Row(values, (issuer, subject), notifies=issuer != subject)


VERIFICATION = RecordType(
    collection="app.bsky.graph.verification",
    table="verifications",
    columns=(
        "uri",
        "cid",
        "subject_did",
        "handle",
        "verified_at",
        "created_at",
        "issuer_did",
    ),
    build=build,
    # Rows that were there before this column hold the issuer in their uri alone.
    basis_sql=("coalesce(issuer_did, split_part(uri, '/', 3))", "subject_did"),
    thing=("issuer_did", "subject_did"),
    rebuild=rebuild,
)
