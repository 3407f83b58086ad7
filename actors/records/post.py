"""`app.bsky.feed.post`: posts, replies, quotes."""

from typing import Any, Final

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
    Wait,
)

_MENTION: Final = "app.bsky.richtext.facet#mention"
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
    facets = fields.optional_array(data, "facets")
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
        fields.optional_json(facets),
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
    return Row(
        values,
        # A new version is judged once it is written; until then it violates nothing.
        (source.did, parent, root, quoted, False, False),
        derived,
        tuple(subjects),
        _waits(parent, root, quoted),
        notifies=parent is not None or quoted is not None or _mentions(facets),
    )


def _waits(parent: str | None, root: str | None, quoted: str | None) -> tuple[Wait, ...]:
    """The posts that it answers and quotes, each once."""
    kinds: dict[str, str] = {}
    for uri, kind in ((parent, "reply"), (root, "reply"), (quoted, "quote")):
        if uri is not None and fields.is_post(uri):
            kinds.setdefault(uri, kind)
    return tuple(Wait(uri, kind) for uri, kind in kinds.items())


def _mentions(facets: list[Any] | None) -> bool:
    """Whether somebody may be mentioned; the notifier looks more closely."""
    return facets is not None and any(
        type(feature) is dict and feature.get("$type") == _MENTION
        for facet in facets
        if type(facet) is dict and type(features := facet.get("features")) is list
        for feature in features
    )


def _quoted_reference(embed: Json) -> Json | None:
    match embed.get("$type"):
        case "app.bsky.embed.record":
            return embed
        case "app.bsky.embed.recordWithMedia":
            return fields.mapping(embed, "record")
        case _:
            return None


def effects(uri: str, basis: Basis) -> Effects:
    """Count the post for its author, as a reply to its parent, as a quote of what it quotes.

    Not as a reply or a quote that a gate forbids.
    """
    author, parent, _root, quoted, violates_thread_gate, violates_embedding_rules = basis
    counts = [(POSTS, author)]
    derived = [("feed_items", uri)]
    if parent is not None and fields.is_post(parent) and not violates_thread_gate:
        counts.append((POST_REPLIES, parent))
    if quoted is not None and fields.is_post(quoted):
        if not violates_embedding_rules:
            counts.append((POST_QUOTES, quoted))
        derived.append(("quotes", f"{uri}#quote"))
    return Effects(counts=tuple(counts), touches=((POST_COUNTS, uri),), derived=tuple(derived))


POST = RecordType(
    collection="app.bsky.feed.post",
    table="posts",
    columns=COLUMNS,
    build=build,
    basis_sql=(
        "author_did",
        "parent_uri",
        "root_uri",
        _QUOTED_SQL,
        "violates_thread_gate",
        "violates_embedding_rules",
    ),
    effects=effects,
)
