"""Which replies are invalid and what the gates forbid, for the reference indexer.

A fixpoint over the records that are indexed, whatever the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests import reference_records as kinds
from tests.reference_decode import is_did, parse_uri

if TYPE_CHECKING:
    from tests.reference import Record

MENTION = "app.bsky.richtext.facet#mention"
DISABLE = f"{kinds.POST_GATE}#disableRule"


@dataclass
class Flags:
    """What is held against a post."""

    invalid: bool = False
    gated: bool = False
    embeds: bool = False


def mentioned(post: Record) -> list[str]:
    """DIDs of the mention facets of a post, in the order of the facets, each once."""
    found: dict[str, None] = {}
    for facet in post.fields["facets"] or []:
        features = facet.get("features") if isinstance(facet, dict) else None
        for feature in features if isinstance(features, list) else []:
            if isinstance(feature, dict) and feature.get("$type") == MENTION:
                did = feature.get("did")
                if isinstance(did, str) and is_did(did):
                    found[did] = None
    return list(found)


def owner(uri: str) -> str:
    """The DID in the uri of a record."""
    parts = parse_uri(uri)
    assert parts is not None
    return parts.did


def judge(indexed: Iterable[Record]) -> dict[str, Flags]:
    """The flags of every indexed post."""
    world = _World(indexed)
    posts = world.posts
    flags = {
        uri: Flags(gated=world.is_gated(post), embeds=world.is_forbidden_quote(post))
        for uri, post in posts.items()
    }
    changed = True
    while changed:
        changed = False
        for uri, post in posts.items():
            parent, root = posts.get(post.fields["parent_uri"]), post.fields["root_uri"]
            if flags[uri].invalid or parent is None or root not in posts:
                continue
            thread = parent.fields["root_uri"] or parent.uri
            if root != thread or flags[parent.uri].invalid:
                flags[uri].invalid = changed = True
    return flags


class _World:
    """What judgements rest on."""

    def __init__(self, indexed: Iterable[Record]) -> None:
        self.posts: dict[str, Record] = {}
        self.thread_gates: dict[str, Record] = {}
        self.disabled: set[str] = set()
        self.follows: set[tuple[str, str]] = set()
        self.members: set[tuple[str, str]] = set()
        for record in indexed:
            fields = record.fields
            match record.collection:
                case kinds.POST:
                    self.posts[record.uri] = record
                case kinds.THREAD_GATE:
                    self.thread_gates[fields["post_uri"]] = record
                case kinds.POST_GATE if _has(fields["embedding_rules"], DISABLE):
                    self.disabled.add(fields["post_uri"])
                case kinds.FOLLOW:
                    self.follows.add((record.author, fields["subject_did"]))
                case kinds.LIST_ITEM:
                    self.members.add((fields["list_uri"], fields["subject_did"]))

    def is_gated(self, reply: Record) -> bool:
        """Whether the gate of its thread keeps its author out."""
        root = self.posts.get(reply.fields["root_uri"])
        if root is None:
            return False
        gate = self.thread_gates.get(root.uri)
        if gate is None or gate.author == reply.author or gate.fields["allow"] is None:
            return False
        allow, did = gate.fields["allow"], reply.author
        return not (
            (_has(allow, f"{kinds.THREAD_GATE}#mentionRule") and did in mentioned(root))
            or (
                _has(allow, f"{kinds.THREAD_GATE}#followingRule")
                and (gate.author, did) in self.follows
            )
            or (
                _has(allow, f"{kinds.THREAD_GATE}#followerRule")
                and (did, gate.author) in self.follows
            )
            or any((uri, did) in self.members for uri in gate.fields["allow_list_uris"])
        )

    def is_forbidden_quote(self, post: Record) -> bool:
        """Whether the author of the post that it quotes forbids that to others."""
        quoted = post.fields["quoted_uri"]
        return quoted in self.disabled and owner(quoted) != post.author


def _has(rules: list[Any], name: str) -> bool:
    return any(isinstance(rule, dict) and rule.get("$type") == name for rule in rules)
