"""`app.bsky.feed.repost`: reposts, which are feed items too."""

from actors.records import fields
from actors.records.record import (
    POST_REPOSTS,
    Basis,
    Derived,
    Effects,
    Json,
    RecordType,
    Row,
    Source,
    Value,
    ViewerState,
)


def build(source: Source, data: Json) -> Row:
    """Make the row of a repost and its feed item."""
    subject, cid, author = fields.strong_ref(data, "subject")
    values = (
        source.uri,
        source.did,
        subject,
        cid,
        fields.via(data)[0],
        fields.record_time(data, source),
        source.commit_time,
        source.commit_seq,
        source.commit_rev,
    )
    return rebuild(values, source.cid)._replace(subjects=(author,))


def rebuild(values: tuple[Value, ...], cid: str) -> Row:
    """Make the Row of a repost from its table's values and its record's CID."""
    uri, user, subject, _subject_cid, via, created, commit_time, _seq, _rev = values
    assert isinstance(created, int)
    sort = created if commit_time is None else min(created, int(commit_time))
    item = Derived("feed_items", (uri, subject, user, "repost", sort, cid, created))
    waits, notifies = fields.reaction_waits("repost", str(user), str(subject), fields.via_uri(via))
    return Row(values, (user, subject), (item,), waits=waits, notifies=notifies)


def effects(uri: str, basis: Basis) -> Effects:
    """Count the repost; it is part of its author's view of the post."""
    user, subject = basis
    item = (("feed_items", uri),)
    if not fields.is_post(subject):
        return Effects(derived=item)
    return Effects(
        counts=((POST_REPOSTS, subject),),
        viewer=ViewerState(subject, user, "repost_uri"),
        derived=item,
    )


REPOST = RecordType(
    collection="app.bsky.feed.repost",
    table="reposts",
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
