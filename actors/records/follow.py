"""`app.bsky.graph.follow`: follows, counted for both accounts."""

from actors.records import fields
from actors.records.record import (
    FOLLOWERS,
    FOLLOWS,
    Basis,
    Effects,
    Json,
    RecordType,
    Row,
    Source,
    Value,
)


def build(source: Source, data: Json) -> Row:
    """Make the row of a follow."""
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
    return rebuild(values, source.cid)._replace(subjects=(subject,))


def rebuild(values: tuple[Value, ...], _cid: str) -> Row:
    """Make the row of a follow that was kept aside."""
    _uri, follower, followed, *_ = values
    return Row(values, (follower, followed), notifies=follower != followed)


def effects(_uri: str, basis: Basis) -> Effects:
    """Count the follow for both accounts."""
    follower, followed = basis
    return Effects(counts=((FOLLOWS, follower), (FOLLOWERS, followed)))


FOLLOW = RecordType(
    collection="app.bsky.graph.follow",
    table="follows",
    columns=(
        "uri",
        "follower_did",
        "following_did",
        "created_at",
        "commit_time",
        "commit_seq",
        "commit_rev",
    ),
    build=build,
    basis_sql=("follower_did", "following_did"),
    effects=effects,
    thing=("follower_did", "following_did"),
    rebuild=rebuild,
)
