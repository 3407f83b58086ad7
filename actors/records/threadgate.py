"""`app.bsky.feed.threadgate`: who may reply to a post. Only the post's author may say so."""

from actors.records import fields
from actors.records.record import Json, RecordType, Row, Source

_RULE = "app.bsky.feed.threadgate#"


def build(source: Source, data: Json) -> Row:
    """Make the row of a thread gate.

    No `allow` means everybody, an empty one nobody: `allow` itself is kept beside the older
    columns that cannot tell the two apart.
    """
    post = fields.gated_post(data, source)
    allow = fields.optional_array(data, "allow")
    rules = [rule for rule in allow or () if type(rule) is dict]
    kinds = {rule.get("$type") for rule in rules if type(rule.get("$type")) is str}
    lists = [
        of_list
        for rule in rules
        if rule.get("$type") == f"{_RULE}listRule" and type(of_list := rule.get("list")) is str
    ]
    values = (
        post,
        source.did,
        allow is None or f"{_RULE}mentionRule" in kinds,
        allow is None or f"{_RULE}followingRule" in kinds,
        f"{_RULE}listRule" in kinds,
        fields.encode_json(lists),
        fields.record_time(data, source),
        fields.optional_json(allow),
        fields.encode_json(fields.optional_array(data, "hiddenReplies") or []),
    )
    return Row(values)


def key(_uri: str, did: str, rkey: str) -> str:
    """Key of the row: the post that has the gate's own record key."""
    return f"at://{did}/app.bsky.feed.post/{rkey}"


THREAD_GATE = RecordType(
    collection="app.bsky.feed.threadgate",
    table="thread_gates",
    columns=(
        "post_uri",
        "owner_did",
        "allow_mentions",
        "allow_following",
        "allow_list_members",
        "allow_list_uris",
        "created_at",
        "allow",
        "hidden_replies",
    ),
    build=build,
    key_column="post_uri",
    key=key,
)
