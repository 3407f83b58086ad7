"""`app.bsky.graph.listitem`: who is on a list. Only a list's own author may add to it."""

from actors.drops import Drop, DropReason
from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source, rebuilt_from


def build(source: Source, data: Json) -> Row:
    """Make the row of a list item; raises Drop when the list is another author's."""
    list_uri = fields.key_text(data, "list")
    fields.authority(list_uri, "list")
    if not list_uri.startswith(f"at://{source.did}/app.bsky.graph.list/"):
        raise Drop(DropReason.NOT_AUTHORIZED, "list is not a list of the author's")
    subject = fields.subject_did(data, "subject")
    values = (source.uri, source.cid, list_uri, subject, fields.record_time(data, source))
    return Row(values, (list_uri, subject), (), (subject,))


LIST_ITEM = RecordType(
    collection="app.bsky.graph.listitem",
    table="list_items",
    columns=("uri", "cid", "list_uri", "subject_did", "created_at"),
    build=build,
    basis_sql=("list_uri", "subject_did"),
    thing=("list_uri", "subject_did"),
    rebuild=rebuilt_from(2, 3),
)
