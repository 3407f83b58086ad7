"""`app.bsky.feed.postgate`: who may embed a post. Only the post's author may say so."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source


def build(source: Source, data: Json) -> Row:
    """Make the row of a post gate."""
    values = (
        fields.gated_post(data, source),
        fields.record_time(data, source),
        fields.encode_json(fields.optional_array(data, "embeddingRules") or []),
    )
    return Row(values)


def key(_uri: str, did: str, rkey: str) -> str:
    """Key of the row: the post that has the gate's own record key."""
    return f"at://{did}/app.bsky.feed.post/{rkey}"


POST_GATE = RecordType(
    collection="app.bsky.feed.postgate",
    table="post_gates",
    columns=("post_uri", "created_at", "embedding_rules"),
    build=build,
    key_column="post_uri",
    key=key,
)
