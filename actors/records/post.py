"""`app.bsky.feed.post`: posts, replies, quotes."""

from actors.records import fields
from actors.records.record import (
    POST_COUNTS,
    POST_QUOTES,
    POST_REPLIES,
    POSTS,
    Basis,
    Derived,
    Effects,
    Json,
    RecordType,
    Row,
    Source,
)

COLUMNS = (
    "uri",
    "cid",
    "author_did",
    "text",
    "langs",
    "parent_uri",
    "parent_cid",
    "root_uri",
    "root_cid",
    "embed",
    "facets",
    "tags",
    "created_at",
    "commit_time",
    "commit_seq",
    "commit_rev",
)
# Where each kind of embed holds the reference to the record it quotes.
_QUOTED_SQL = (
    "CASE embed->>'$type'"
    " WHEN 'app.bsky.embed.record' THEN embed#>>'{record,uri}'"
    " WHEN 'app.bsky.embed.recordWithMedia' THEN embed#>>'{record,record,uri}' END"
)


def build(source: Source, data: Json) -> Row:
    """Make the row of a post, its feed item and, where it quotes a post, the quote."""
    parent = root = parent_cid = root_cid = None
    subjects: list[str] = []
    reply = fields.optional_mapping(data, "reply")
    if reply is not None:
        parent, parent_cid, parent_author = fields.strong_ref(reply, "parent")
        root, root_cid, root_author = fields.strong_ref(reply, "root")
        subjects += (parent_author, root_author)
    embed = fields.optional_mapping(data, "embed")
    quoted = quoted_cid = None
    if embed is not None:
        reference = _quoted_reference(embed)
        if reference is not None:
            quoted, quoted_cid, quoted_author = fields.strong_ref(reference, "record")
            subjects.append(quoted_author)
    created = fields.record_time(data, source)
    sort = min(created, source.commit_time)
    values = (
        source.uri,
        source.cid,
        source.did,
        fields.text(data, "text"),
        fields.optional_json(fields.optional_array(data, "langs")),
        parent,
        parent_cid,
        root,
        root_cid,
        fields.optional_json(embed),
        fields.optional_json(fields.optional_array(data, "facets")),
        fields.encode_json(fields.optional_array(data, "tags") or []),
        created,
        source.commit_time,
        source.commit_seq,
        source.commit_rev,
    )
    uri = source.uri
    item = Derived("feed_items", (uri, uri, source.did, "post", sort, source.cid, created))
    derived: tuple[Derived, ...] = (item,)
    if quoted is not None and fields.is_post(quoted):
        quote = (f"{uri}#quote", source.cid, uri, quoted, quoted_cid, created)
        derived = (item, Derived("quotes", quote))
    return Row(values, (source.did, parent, root, quoted), derived, tuple(subjects))


def _quoted_reference(embed: Json) -> Json | None:
    match embed.get("$type"):
        case "app.bsky.embed.record":
            return embed
        case "app.bsky.embed.recordWithMedia":
            return fields.mapping(embed, "record")
        case _:
            return None


def effects(uri: str, basis: Basis) -> Effects:
    """Count the post for its author, as a reply to its parent, as a quote of what it quotes."""
    author, parent, _root, quoted = basis
    counts = [(POSTS, author)]
    derived = [("feed_items", uri)]
    if parent is not None and fields.is_post(parent):
        counts.append((POST_REPLIES, parent))
    if quoted is not None and fields.is_post(quoted):
        counts.append((POST_QUOTES, quoted))
        derived.append(("quotes", f"{uri}#quote"))
    return Effects(counts=tuple(counts), touches=((POST_COUNTS, uri),), derived=tuple(derived))


POST = RecordType(
    collection="app.bsky.feed.post",
    table="posts",
    columns=COLUMNS,
    build=build,
    basis_sql=("author_did", "parent_uri", "root_uri", _QUOTED_SQL),
    effects=effects,
)
