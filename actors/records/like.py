"""`app.bsky.feed.like`: likes of posts, feed generators, labelers."""

from actors.records import fields
from actors.records.record import (
    POST_LIKES,
    SUBJECT_LIKES,
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
    """Make the row of a like."""
    subject, cid, author = fields.strong_ref(data, "subject")
    values = (
        source.uri,
        source.did,
        subject,
        cid,
        fields.optional_json(fields.optional_mapping(data, "via")),
        fields.record_time(data, source),
        source.commit_time,
        source.commit_seq,
        source.commit_rev,
    )
    return Row(values, (source.did, subject), (), (author,))


def effects(_uri: str, basis: Basis) -> Effects:
    """Count the like; a like of a post is part of its author's view of the post."""
    user, subject = basis
    if not fields.is_post(subject):
        return Effects(counts=((SUBJECT_LIKES, subject),))
    return Effects(counts=((POST_LIKES, subject),), viewer=ViewerState(subject, user, "like_uri"))


LIKE = RecordType(
    collection="app.bsky.feed.like",
    table="likes",
    columns=(
        "uri",
        "user_did",
        "post_uri",
        "subject_cid",
        "via",
        "created_at",
        "commit_time",
        "commit_seq",
        "commit_rev",
    ),
    build=build,
    basis_sql=("user_did", "post_uri"),
    effects=effects,
    thing=("user_did", "post_uri"),
    rebuild=rebuilt_from(1, 2),
)
