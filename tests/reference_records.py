"""What each collection's record means, for the reference indexer: checks, columns, users named."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.reference_decode import MAX_KEY_BYTES, Dropped, Uri, is_did, parse_uri

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
BOOKMARK = "app.bsky.bookmark"
FOLLOW = "app.bsky.graph.follow"
BLOCK = "app.bsky.graph.block"
LIST_BLOCK = "app.bsky.graph.listblock"
LIST = "app.bsky.graph.list"
LIST_ITEM = "app.bsky.graph.listitem"
STARTER_PACK = "app.bsky.graph.starterpack"
PROFILE = "app.bsky.actor.profile"
GENERATOR = "app.bsky.feed.generator"
LABELER = "app.bsky.labeler.service"
THREAD_GATE = "app.bsky.feed.threadgate"
POST_GATE = "app.bsky.feed.postgate"
VERIFICATION = "app.bsky.graph.verification"
LABEL = "com.atproto.label.label"

ONLY_SELF = {
    PROFILE,
    LABELER,
    "app.bsky.actor.status",
    "app.bsky.notification.declaration",
    "chat.bsky.actor.declaration",
}
RECORD_EMBED = "app.bsky.embed.record"
RECORD_WITH_MEDIA = "app.bsky.embed.recordWithMedia"


@dataclass
class Accepted:
    """A record that passed: its own columns, the DIDs it names, and the time it gives."""

    fields: dict[str, Any]
    users: set[str] = field(default_factory=set)
    time: Any = None


def check_key(collection: str, rkey: str) -> None:
    """Refuse a record whose key its collection does not allow. Raises Dropped."""
    if collection in ONLY_SELF and rkey != "self":
        raise Dropped("not_authorized")


def accept(author: str, collection: str, rkey: str, value: dict[str, Any]) -> Accepted:
    """Check a decoded record and take out what the tables hold of it. Raises Dropped."""
    if value.get("$type") != collection:
        raise Dropped("type_mismatch")
    reader = READERS.get(collection, _anything)
    accepted = reader(_Fields(author, collection, rkey, value))
    accepted.time = value.get("cts" if collection == LABEL else "createdAt")
    return accepted


class _Fields:
    """A record's fields, by the type that the index needs them in. Null counts as absent."""

    def __init__(self, author: str, collection: str, rkey: str, value: dict[str, Any]) -> None:
        self.author = author
        self.value = value
        self.rkey = rkey
        _key(f"at://{author}/{collection}/{rkey}")

    def text(self, name: str) -> str:
        found = self.value.get(name)
        if not isinstance(found, str):
            raise Dropped("invalid_record")
        return found

    def optional_text(self, name: str) -> str | None:
        return None if self.value.get(name) is None else self.text(name)

    def key(self, name: str) -> str:
        return _key(self.text(name))

    def did(self, name: str) -> str:
        text = self.key(name)
        if not is_did(text):
            raise Dropped("invalid_record")
        return text

    def uri(self, name: str) -> Uri:
        return _uri(self.text(name))

    def subject(self, name: str) -> tuple[str, str, Uri]:
        return _strong_ref(self.value.get(name))

    def blob(self, name: str) -> str | None:
        """The CID of a blob; the old kind, from before there was a `ref`, gives it as text."""
        found = self.value.get(name)
        if found is None:
            return None
        if not isinstance(found, dict):
            raise Dropped("invalid_record")
        ref = found.get("ref")
        link = ref.get("$link") if isinstance(ref, dict) else found.get("cid")
        if not isinstance(link, str):
            raise Dropped("invalid_record")
        return link

    def json(self, name: str, kind: type, default: Any = None) -> Any:
        found = self.value.get(name)
        if found is None:
            return default
        if not isinstance(found, kind):
            raise Dropped("invalid_record")
        return found


def _key(text: str) -> str:
    if len(text.encode()) > MAX_KEY_BYTES:
        raise Dropped("key_too_long")
    return text


def _uri(text: Any) -> Uri:
    uri = parse_uri(_key(text)) if isinstance(text, str) else None
    if uri is None:
        raise Dropped("invalid_record")
    return uri


def _strong_ref(value: Any) -> tuple[str, str, Uri]:
    if not isinstance(value, dict):
        raise Dropped("invalid_record")
    text, cid = value.get("uri"), value.get("cid")
    if not isinstance(text, str) or not isinstance(cid, str):
        raise Dropped("invalid_record")
    return text, cid, _uri(text)


def _post(record: _Fields) -> Accepted:
    fields: dict[str, Any] = {
        "text": record.text("text"),
        "langs": record.json("langs", list),
        "facets": record.json("facets", list),
        "embed": record.json("embed", dict),
        "tags": record.json("tags", list, []),
        "parent_uri": None,
        "parent_cid": None,
        "root_uri": None,
        "root_cid": None,
        "quoted_uri": None,
        "quoted_cid": None,
    }
    users = set()
    reply = record.value.get("reply")
    if reply is not None:
        if not isinstance(reply, dict):
            raise Dropped("invalid_record")
        for side in ("parent", "root"):
            text, cid, uri = _strong_ref(reply.get(side))
            fields[f"{side}_uri"], fields[f"{side}_cid"] = text, cid
            users.add(uri.did)
    embed = record.value.get("embed")
    quoted: Any = None
    if isinstance(embed, dict) and embed.get("$type") == RECORD_EMBED:
        quoted = embed.get("record")
    elif isinstance(embed, dict) and embed.get("$type") == RECORD_WITH_MEDIA:
        wrapper = embed.get("record")
        quoted = wrapper.get("record") if isinstance(wrapper, dict) else None
    else:
        return Accepted(fields, users)
    text, cid, uri = _strong_ref(quoted)
    users.add(uri.did)
    if uri.collection == POST:
        fields["quoted_uri"], fields["quoted_cid"] = text, cid
    return Accepted(fields, users)


def _like_or_repost(record: _Fields) -> Accepted:
    text, cid, uri = record.subject("subject")
    via = record.json("via", dict)
    if via is not None and isinstance(via.get("uri"), str):
        _key(via["uri"])
    fields = {"post_uri": text, "subject_cid": cid, "via": via}
    return Accepted(fields, {uri.did})


def _bookmark(record: _Fields) -> Accepted:
    text, _, uri = record.subject("subject")
    return Accepted({"post_uri": text}, {uri.did})


def _about_a_user(record: _Fields) -> Accepted:
    subject = record.did("subject")
    return Accepted({"subject_did": subject}, {subject})


def _list_block(record: _Fields) -> Accepted:
    return Accepted({"list_uri": record.text("subject")}, {record.uri("subject").did})


def _list(record: _Fields) -> Accepted:
    return Accepted(
        {
            "name": record.text("name"),
            "purpose": record.text("purpose"),
            "description": record.optional_text("description"),
            "avatar_url": record.blob("avatar"),
        }
    )


def _list_item(record: _Fields) -> Accepted:
    subject = record.did("subject")
    uri = record.uri("list")
    if uri.did != record.author or uri.collection != LIST:
        raise Dropped("not_authorized")
    return Accepted({"list_uri": record.text("list"), "subject_did": subject}, {subject})


def _starter_pack(record: _Fields) -> Accepted:
    list_uri = None if record.value.get("list") is None else record.key("list")
    return Accepted(
        {
            "name": record.text("name"),
            "description": record.optional_text("description"),
            "list_uri": list_uri,
            "feeds": record.json("feeds", list, []),
        }
    )


def _profile(record: _Fields) -> Accepted:
    pack, users = None, set()
    if record.value.get("joinedViaStarterPack") is not None:
        text, _, uri = record.subject("joinedViaStarterPack")
        if uri.collection == STARTER_PACK:
            pack, users = text, {uri.did}
    return Accepted(
        {
            "pack": pack,
            "display_name": record.optional_text("displayName"),
            "description": record.optional_text("description"),
            "avatar_url": record.blob("avatar"),
            "banner_url": record.blob("banner"),
            "pinned_post": record.json("pinnedPost", dict),
        },
        users,
    )


def _generator(record: _Fields) -> Accepted:
    return Accepted(
        {
            "did": record.key("did"),
            "display_name": record.text("displayName"),
            "description": record.optional_text("description"),
            "avatar_url": record.blob("avatar"),
        }
    )


def _labeler(record: _Fields) -> Accepted:
    policies = record.value.get("policies")
    if not isinstance(policies, dict):
        raise Dropped("invalid_record")
    return Accepted({"policies": policies})


def _gated_post(record: _Fields) -> str:
    uri = record.uri("post")
    if uri != (record.author, POST, record.rkey):
        raise Dropped("not_authorized")
    return record.text("post")


def _thread_gate(record: _Fields) -> Accepted:
    allow = record.json("allow", list)
    rules = [rule for rule in allow or [] if isinstance(rule, dict)]

    def has(name: str) -> bool:
        return any(rule.get("$type") == f"{THREAD_GATE}#{name}" for rule in rules)

    return Accepted(
        {
            "post_uri": _gated_post(record),
            "allow_mentions": allow is None or has("mentionRule"),
            "allow_following": allow is None or has("followingRule"),
            "allow_list_members": has("listRule"),
            "allow_list_uris": [
                rule["list"]
                for rule in rules
                if rule.get("$type") == f"{THREAD_GATE}#listRule"
                and isinstance(rule.get("list"), str)
            ],
            "allow": allow,
            "hidden_replies": record.json("hiddenReplies", list, []),
        }
    )


def _post_gate(record: _Fields) -> Accepted:
    return Accepted(
        {
            "post_uri": _gated_post(record),
            "embedding_rules": record.json("embeddingRules", list, []),
        }
    )


def _verification(record: _Fields) -> Accepted:
    subject = record.did("subject")
    return Accepted({"subject_did": subject, "handle": record.key("handle")}, {subject})


def _label(record: _Fields) -> Accepted:
    negated = record.json("neg", bool, False)
    fields = {
        "src": record.did("src"),
        "subject": record.key("uri"),
        "val": record.key("val"),
        "neg": negated,
        "cid": record.optional_text("cid"),
        "cts": record.optional_text("cts"),
        "exp": record.optional_text("exp"),
    }
    if fields["src"] != record.author:
        raise Dropped("not_authorized")
    return Accepted(fields)


def _anything(_: _Fields) -> Accepted:
    return Accepted({})


READERS: dict[str, Callable[[_Fields], Accepted]] = {
    POST: _post,
    LIKE: _like_or_repost,
    REPOST: _like_or_repost,
    BOOKMARK: _bookmark,
    FOLLOW: _about_a_user,
    BLOCK: _about_a_user,
    LIST_BLOCK: _list_block,
    LIST: _list,
    LIST_ITEM: _list_item,
    STARTER_PACK: _starter_pack,
    PROFILE: _profile,
    GENERATOR: _generator,
    LABELER: _labeler,
    THREAD_GATE: _thread_gate,
    POST_GATE: _post_gate,
    VERIFICATION: _verification,
    LABEL: _label,
}
