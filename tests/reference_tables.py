"""From final records to tables, for the reference indexer: every count is counted here, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tests import reference_records as kinds
from tests.reference_decode import EPOCH, parse_uri, tid_time
from tests.reference_judgement import Flags, judge
from tests.reference_notifications import profile_time

if TYPE_CHECKING:
    from tests.reference import Record, Reference

Key = tuple[str, ...]
Rows = dict[Key, dict[str, Any]]
Tables = dict[str, Rows]

# Table and the parts of the thing that two records of one author may both be about.
THINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    kinds.LIKE: ("likes", ("author", "post_uri")),
    kinds.REPOST: ("reposts", ("author", "post_uri")),
    kinds.BOOKMARK: ("bookmarks", ("author", "post_uri")),
    kinds.FOLLOW: ("follows", ("author", "subject_did")),
    kinds.BLOCK: ("blocks", ("author", "subject_did")),
    kinds.LIST_BLOCK: ("list_blocks", ("author", "list_uri")),
    kinds.LIST_ITEM: ("list_items", ("list_uri", "subject_did")),
    kinds.VERIFICATION: ("verifications", ("author", "subject_did")),
}


def build(reference: Reference) -> Tables:
    """Every table of the index: table -> key -> column -> value."""
    tables: Tables = defaultdict(dict)
    indexed, aside = split(reference.records.values())
    for table, thing, record in aside:
        row = {"uri": record.uri, "thing": thing, "table_name": table}
        tables["engine_duplicates"][(record.uri,)] = row
    for record in indexed:
        _row(tables, record)
    _flags_of_posts(tables, judge(indexed))
    _users(tables, reference, indexed)
    _aggregates(tables)
    _viewer_states(tables)
    _thread_contexts(tables)
    for did, repo in reference.repos.items():
        tables["engine_repos"][(did,)] = {
            "did": did,
            "rev": repo.rev,
            "data": repo.data,
            "out_of_step": repo.out_of_step,
            "withheld": repo.withheld,
        }
    for notice in (*reference.notices.told.values(), *reference.unverified.values()):
        tables["notifications"][(notice.uri,)] = notice.row()
    for did, standing in reference.accounts.items():
        tables["engine_accounts"][(did,)] = standing.row(did)
    return dict(tables)


def split(records: Iterable[Record]) -> tuple[list[Record], list[tuple[str, str, Record]]]:
    """The records that are indexed; and the duplicates: their table, their thing, the record."""
    indexed, aside = [], []
    rivals: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.collection not in THINGS:
            indexed.append(record)
            continue
        table, parts = THINGS[record.collection]
        columns = {"author": record.author, **record.fields}
        rivals[table, " ".join(columns[part] for part in parts)].append(record)
    for (table, thing), same in rivals.items():
        first, *rest = sorted(same, key=lambda record: record.rkey.encode())
        indexed.append(first)
        aside += [(table, thing, record) for record in rest]
    return indexed, aside


def _row(tables: Tables, record: Record) -> None:
    """Write the rows that an indexed record has on its own account."""
    own = record.fields
    row: dict[str, Any] = {"uri": record.uri, "created_at": record.created_at}
    with_cid = {**row, "cid": record.cid}
    commit = {
        "commit_time": record.commit_time,
        "commit_seq": record.commit_seq,
        "commit_rev": record.commit_rev,
    }
    creator = {"creator_did": record.author}
    name = "generic_records"
    match record.collection:
        case kinds.POST:
            name, row = "posts", {**with_cid, **own, **commit, "author_did": record.author}
            _quote(tables, record)
            _feed_item(tables, record, "post", record.uri)
        case kinds.LIKE:
            name, row = "likes", {**row, **own, **commit, "user_did": record.author}
        case kinds.REPOST:
            name, row = "reposts", {**row, **own, **commit, "user_did": record.author}
            _feed_item(tables, record, "repost", own["post_uri"])
        case kinds.BOOKMARK:
            name, row = "bookmarks", {**row, **own, "user_did": record.author}
        case kinds.FOLLOW:
            ends = {"follower_did": record.author, "following_did": own["subject_did"]}
            name, row = "follows", {**row, **ends, **commit}
        case kinds.BLOCK:
            ends = {"blocker_did": record.author, "blocked_did": own["subject_did"]}
            name, row = "blocks", {**row, **ends, **commit}
        case kinds.LIST_BLOCK:
            name, row = "list_blocks", {**row, **own, "blocker_did": record.author}
        case kinds.LIST:
            name, row = "lists", {**with_cid, **own, **creator}
        case kinds.LIST_ITEM:
            name, row = "list_items", {**with_cid, **own}
        case kinds.STARTER_PACK:
            name, row = "starter_packs", {**with_cid, **own, **creator}
        case kinds.GENERATOR:
            name, row = "feed_generators", {**with_cid, **own, **creator}
        case kinds.LABELER:
            name, row = "labeler_services", {**with_cid, **own, **creator}
        case kinds.VERIFICATION:
            name, row = "verifications", {**with_cid, **own, "issuer_did": record.author}
            row["verified_at"] = record.created_at
        case kinds.LABEL:
            name, row = "labels", {**row, **own}
        case kinds.THREAD_GATE:
            name, row = "thread_gates", {**own, "owner_did": record.author}
            row["created_at"] = record.created_at
        case kinds.POST_GATE:
            name, row = "post_gates", {**own, "created_at": record.created_at}
        case kinds.PROFILE:
            return
        case _:
            row = {**with_cid, "author_did": record.author, "record": record.value}
            row["record_type"] = record.collection
    key = row["post_uri"] if name in ("thread_gates", "post_gates") else row["uri"]
    tables[name][(key,)] = row


def _quote(tables: Tables, post: Record) -> None:
    if post.fields["quoted_uri"] is None:
        return
    uri = f"{post.uri}#quote"
    tables["quotes"][(uri,)] = {
        "uri": uri,
        "cid": post.cid,
        "post_uri": post.uri,
        "quoted_uri": post.fields["quoted_uri"],
        "quoted_cid": post.fields["quoted_cid"],
        "created_at": post.created_at,
    }


def _feed_item(tables: Tables, record: Record, kind: str, post_uri: str) -> None:
    tables["feed_items"][(record.uri,)] = {
        "uri": record.uri,
        "post_uri": post_uri,
        "originator_did": record.author,
        "type": kind,
        "sort_at": min(record.created_at, record.commit_time),
        "cid": record.cid,
        "created_at": record.created_at,
    }


def _flags_of_posts(tables: Tables, flags: dict[str, Flags]) -> None:
    for (uri,), row in tables["posts"].items():
        del row["quoted_uri"], row["quoted_cid"]
        row["engine_invalid_reply"] = flags[uri].invalid
        row["violates_thread_gate"] = flags[uri].gated
        row["violates_embedding_rules"] = flags[uri].embeds
        row["has_thread_gate"] = (uri,) in tables["thread_gates"]
        row["has_post_gate"] = (uri,) in tables["post_gates"]


def _users(tables: Tables, reference: Reference, indexed: list[Record]) -> None:
    for did in reference.users:
        standing = reference.accounts.get(did)
        tables["users"][(did,)] = {
            "did": did,
            "handle": "handle.invalid",
            "display_name": None,
            "description": None,
            "avatar_url": None,
            "banner_url": None,
            "pinned_post": None,
            "profile_record": None,
            "created_at": EPOCH,
            "engine_account_status": None if standing is None else standing.shown,
            "engine_joined_via": reference.joined.get(did),
        }
    for record in indexed:
        if record.collection == kinds.PROFILE:
            row = tables["users"][(record.author,)]
            row |= {name: value for name, value in record.fields.items() if name != "pack"}
            row["profile_record"] = record.value
            row["created_at"] = profile_time(record)


def _is_post(uri: str) -> bool:
    parts = parse_uri(uri)
    return parts is not None and parts.collection == kinds.POST


def _count(rows: Iterable[dict[str, Any]], column: str) -> Counter[str]:
    return Counter(row[column] for row in rows if row[column] is not None)


def _aggregates(tables: Tables) -> None:
    # What a gate forbids does not count as a reply or a quote; everything else of it stays.
    replies = [row for row in tables["posts"].values() if not row["violates_thread_gate"]]
    quotes = [
        row
        for row in tables["quotes"].values()
        if not tables["posts"][row["post_uri"],]["violates_embedding_rules"]
    ]
    likes = _count(tables["likes"].values(), "post_uri")
    counts = {
        "like_count": likes,
        "repost_count": _count(tables["reposts"].values(), "post_uri"),
        "reply_count": _count(replies, "parent_uri"),
        "bookmark_count": _count(tables["bookmarks"].values(), "post_uri"),
        "quote_count": _count(quotes, "quoted_uri"),
    }
    counted = {uri for counter in counts.values() for uri in counter if _is_post(uri)}
    for uri in counted | {uri for (uri,) in tables["posts"]}:
        tables["post_aggregations"][(uri,)] = {
            "post_uri": uri,
            **{column: counter[uri] for column, counter in counts.items()},
            "created_at": _time_of(uri),
        }
    subjects = {uri for uri in likes if not _is_post(uri)}
    for name in ("feed_generators", "labeler_services"):
        for (uri,), row in tables[name].items():
            subjects.add(uri)
            row["like_count"] = likes[uri]
    for uri in subjects:
        tables["engine_subject_aggregations"][(uri,)] = {"uri": uri, "like_count": likes[uri]}
    followers = _count(tables["follows"].values(), "following_did")
    follows = _count(tables["follows"].values(), "follower_did")
    posts = _count(tables["posts"].values(), "author_did")
    for did in {*followers, *follows, *posts}:
        tables["engine_user_aggregations"][(did,)] = {
            "did": did,
            "followers_count": followers[did],
            "follows_count": follows[did],
            "posts_count": posts[did],
        }


def _viewer_states(tables: Tables) -> None:
    def row_of(source: dict[str, Any]) -> dict[str, Any]:
        post_uri, viewer = source["post_uri"], source["user_did"]
        return tables["post_viewer_states"].setdefault(
            (post_uri, viewer),
            {
                "post_uri": post_uri,
                "viewer_did": viewer,
                "like_uri": None,
                "repost_uri": None,
                "bookmarked": False,
                "thread_muted": False,
                "reply_disabled": False,
                "embedding_disabled": False,
                "pinned": False,
                "created_at": _time_of(post_uri),
            },
        )

    for row in tables["likes"].values():
        if _is_post(row["post_uri"]):
            row_of(row)["like_uri"] = row["uri"]
    for row in tables["reposts"].values():
        if _is_post(row["post_uri"]):
            row_of(row)["repost_uri"] = row["uri"]
    for row in tables["bookmarks"].values():
        if _is_post(row["post_uri"]):
            row_of(row)["bookmarked"] = True


def _thread_contexts(tables: Tables) -> None:
    likes = {(row["user_did"], row["post_uri"]): row["uri"] for row in tables["likes"].values()}
    for (uri,), post in tables["posts"].items():
        if post["parent_uri"] is None:
            continue
        root = parse_uri(post["root_uri"])
        assert root is not None
        tables["thread_contexts"][(uri,)] = {
            "post_uri": uri,
            "root_author_like_uri": likes.get((root.did, uri)),
            "created_at": _time_of(uri),
        }


def _time_of(post_uri: str) -> Any:
    parts = parse_uri(post_uri)
    assert parts is not None
    return tid_time(parts.rkey)
