"""`com.atproto.label.label`: a label that its source keeps in its own repository.

Labels proper come from labelers' streams; a record counts only where its `src` is the repository.
"""

from actors.drops import Drop, DropReason
from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source


def build(source: Source, data: Json) -> Row:
    """Make the row of a label; raises Drop when it speaks for another source."""
    src = fields.subject_did(data, "src")
    if src != source.did:
        raise Drop(DropReason.NOT_AUTHORIZED, "src is not the author")
    negated = data.get("neg")
    if negated is None:
        negated = False
    elif type(negated) is not bool:
        raise fields.invalid("neg", "is not a boolean")
    exp = fields.optional_text(data, "exp")
    values = (
        source.uri,
        src,
        fields.key_text(data, "uri"),
        fields.key_text(data, "val"),
        negated,
        fields.record_time(data, source, "cts"),
        fields.optional_text(data, "cid"),
        fields.optional_text(data, "cts"),
        exp,
        None if negated else fields.parse_time(exp),
    )
    return Row(values)


LABEL = RecordType(
    collection="com.atproto.label.label",
    table="labels",
    columns=(
        "uri",
        "src",
        "subject",
        "val",
        "neg",
        "created_at",
        "cid",
        "cts",
        "exp",
        "engine_expires",
    ),
    build=build,
)
