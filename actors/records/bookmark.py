"""`app.bsky.bookmark`: bookmarks, where an account keeps them in its repository."""

from actors.records import fields
from actors.records.record import (
    POST_BOOKMARKS,
    Basis,
    Effects,
    Json,
    RecordType,
    Row,
    Source,
    ViewerState,
    rebuilt_from,
)


def build(source: Source, data: Json) -> Row:
    """Make the row of a bookmark; its subject is a reference, or the bare uri of one."""
    subject = data.get("subject")
    if type(subject) is str:
        uri = fields.key_text(data, "subject")
        author = fields.authority(uri, "subject")
    else:
        uri, _cid, author = fields.strong_ref(data, "subject")
    values = (source.uri, source.did, uri, fields.record_time(data, source))
    return Row(values, (source.did, uri), (), (author,))


def effects(_uri: str, basis: Basis) -> Effects:
    """Count the bookmark; it is part of its author's view of the post."""
    user, subject = basis
    if not fields.is_post(subject):
        return Effects()
    return Effects(
        counts=((POST_BOOKMARKS, subject),), viewer=ViewerState(subject, user, "bookmarked")
    )


BOOKMARK = RecordType(
    collection="app.bsky.bookmark",
    table="bookmarks",
    columns=("uri", "user_did", "post_uri", "created_at"),
    build=build,
    basis_sql=("user_did", "post_uri"),
    effects=effects,
    thing=("user_did", "post_uri"),
    rebuild=rebuilt_from(1, 2),
)
