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
    Value,
    ViewerState,
)


def build(source: Source, data: Json) -> Row:
    """Make the row of a like."""
    subject, cid, author = fields.strong_ref(data, "subject")
    via, through = fields.via(data)
    values = (
        source.uri,
        source.did,
        subject,
        cid,
        via,
        fields.record_time(data, source),
        source.commit_time,
        source.commit_seq,
        source.commit_rev,
    )
    return _row(values, source.did, subject, through)._replace(subjects=(author,))


def rebuild(values: tuple[Value, ...], _cid: str) -> Row:
    """Make the row of a like that was kept aside."""
    return _row(values, str(values[1]), str(values[2]), fields.via_uri(values[4]))


def _row(values: tuple[Value, ...], user: str, subject: str, through: str | None) -> Row:
    waits, notifies = fields.reaction_waits("like", user, subject, through)
    return Row(values, (user, subject), waits=waits, notifies=notifies)


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
    rebuild=rebuild,
)
