"""Every other collection: the record is stored whole in `generic_records`."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source

COLUMNS = ("uri", "cid", "author_did", "record_type", "record", "created_at")


def build(source: Source, data: Json) -> Row:
    """Make the row of a record that the index keeps as it is."""
    values = (
        source.uri,
        source.cid,
        source.did,
        fields.key_text(data, "$type"),
        fields.encode_json(data),
        fields.record_time(data, source),
    )
    return Row(values)


def generic(collection: str, only_key: str | None = None) -> RecordType:
    """Return the record type of a collection that has no table of its own."""
    return RecordType(
        collection=collection,
        table="generic_records",
        columns=COLUMNS,
        build=build,
        only_key=only_key,
    )


STATUS = generic("app.bsky.actor.status", "self")
NOTIFICATION_DECLARATION = generic("app.bsky.notification.declaration", "self")
CHAT_DECLARATION = generic("chat.bsky.actor.declaration", "self")
UNKNOWN = generic("*")
