"""Why our tables differ from the other index's: one entry for each kind of difference in a table.

An entry covers differences of one column of one table (or rows that one side alone has) for which
its check holds, and how many these are is part of it. Where the check can be told from the events,
it is; what nothing tells is named by its keys.
"""

from datetime import timedelta

from tests.corpus.oracle_comparisons import FLAGS, TYPE_TABLES
from tests.corpus.oracle_events import author, collection, rkey
from tests.corpus.oracle_facts import Facts, Reason
from tests.corpus.oracle_tables import OURS, THEIRS, Difference
from tests.reference_decode import is_did, is_tid, parse_time

# In each of these collections it indexes nothing at all.
UNKNOWN_TO_IT = {
    "app.bsky.actor.contentVisibilityDeclaration",
    "com.atproto.lexicon.schema",
    "com.example.devEnv.camelCase",
    "com.example.devenv.thing",
    "site.standard.document",
    "site.standard.publication",
}
# A time further ahead of its commit's than this is the commit's, here.
AHEAD = timedelta(minutes=5)


# --- records -------------------------------------------------------------------------------------


def _names_a_handle(difference: Difference, facts: Facts) -> bool:
    subject = facts.events.record(difference.key).get("subject")
    return isinstance(subject, dict) and not is_did(author(subject["uri"]))


def _has_a_nul(difference: Difference, facts: Facts) -> bool:
    return "\0" in facts.events.record(difference.key).get("text", "")


def _is_in_year_zero(difference: Difference, facts: Facts) -> bool:
    created_at: str = facts.events.record(difference.key).get("createdAt", "")
    return created_at.startswith("0000-")


def _is_keyed_by_no_tid(difference: Difference, _facts: Facts) -> bool:
    return collection(difference.key) == "app.bsky.feed.post" and not is_tid(rkey(difference.key))


def _is_ahead(difference: Difference, facts: Facts) -> bool:
    version = facts.events.last(difference.key)
    claimed, time = parse_time(version.record["createdAt"]), parse_time(version.time)
    assert claimed is not None
    assert time is not None
    return claimed > time + AHEAD and difference.ours == version.time


def _stands_in_its_repository(difference: Difference, facts: Facts) -> bool:
    return difference.key == LOST and facts.events.stands(difference.key)


def _is_of_an_unknown_collection(difference: Difference, facts: Facts) -> bool:
    known = {collection(uri) for uri in facts.sides.theirs["record"]}
    found = collection(difference.key)
    return found in UNKNOWN_TO_IT and found not in known and facts.events.stands(difference.key)


def _is_a_second_profile(difference: Difference, _facts: Facts) -> bool:
    return "app.bsky.actor.profile/" in difference.key and rkey(difference.key) != "self"


def _is_without_a_time(difference: Difference, facts: Facts) -> bool:
    return "createdAt" not in facts.events.last(difference.key).record and not difference.ours


def _pin_is_in_its_own_record(difference: Difference, facts: Facts) -> bool:
    record = facts.sides.theirs["record"][difference.key]["json"]
    return difference.ours in record and facts.events.was_updated(difference.key)


def _subject_was_deleted(difference: Difference, facts: Facts) -> bool:
    row = facts.row(difference)
    return facts.events.was_deleted(row["subject"] if "subject" in row else row["postUri"])


def _is_of_a_deleted_account(difference: Difference, facts: Facts) -> bool:
    return author(difference.key) in facts.events.deleted_accounts


def _is_kept_aside(difference: Difference, facts: Facts) -> bool:
    sides = facts.sides
    return all(difference.key in side["duplicate_record"] for side in (sides.ours, sides.theirs))


def _took_over(difference: Difference, facts: Facts) -> bool:
    """The record before it was deleted, and it is indexed on both sides."""
    uri, before = difference.key, facts.sides.theirs["duplicate_record"][difference.key]
    table = TYPE_TABLES[collection(uri)]
    indexed = uri in facts.sides.ours[table] and uri in facts.sides.theirs[table]
    return indexed and facts.events.was_deleted(before["duplicateOf"])


def _is_behind_who_took_over(difference: Difference, facts: Facts) -> bool:
    took_over = ("duplicate_record", difference.ours, THEIRS)
    return took_over in facts.differences and facts.events.was_deleted(difference.theirs)


# --- judgements ----------------------------------------------------------------------------------


def _lacks_its_parent(difference: Difference, facts: Facts) -> bool:
    parent = facts.row(difference)["replyParent"]
    return all(parent not in side["post"] for side in (facts.sides.ours, facts.sides.theirs))


def _gate_was_deleted(difference: Difference, facts: Facts) -> bool:
    gate = facts.row(difference)["replyRoot"].replace(".post/", ".threadgate/")
    return facts.events.was_deleted(gate)


def thread_gate_came_later(post: str, root: str, facts: Facts) -> bool:
    """Whether the thread was gated when the reply was there already."""
    gate = root.replace(".post/", ".threadgate/")
    return facts.events.begin(gate) > facts.events.begin(post)


def post_gate_came_later(post: str, quoted: str, facts: Facts) -> bool:
    """Whether a post was gated when the quote was there already."""
    gate = quoted.replace(".post/", ".postgate/")
    return facts.events.begin(gate) > facts.events.begin(post)


def _thread_gate_came_later(difference: Difference, facts: Facts) -> bool:
    return thread_gate_came_later(difference.key, facts.row(difference)["replyRoot"], facts)


def _post_gate_came_later(difference: Difference, facts: Facts) -> bool:
    quoted = facts.sides.ours["quote"][difference.key]["subject"]
    return post_gate_came_later(difference.key, quoted, facts)


# --- counts --------------------------------------------------------------------------------------


def _surplus(difference: Difference) -> int:
    """By how much ours is more."""
    return int(difference.ours) - int(difference.theirs)


def _counts_what_it_lost(difference: Difference, facts: Facts) -> bool:
    lost = [row for row in facts.only(OURS, "like") if row["subject"] == difference.key]
    return _surplus(difference) == len(lost) > 0


def _counts_what_names_a_handle(difference: Difference, facts: Facts) -> bool:
    likes = [row for row in facts.only(THEIRS, "like") if row["subject"] == difference.key]
    return not is_did(author(difference.key)) and _surplus(difference) == -len(likes)


def _counts_likes_of_deleted_accounts(difference: Difference, facts: Facts) -> bool:
    likes = [
        uri
        for uri, versions in facts.events.versions.items()
        if author(uri) in facts.events.deleted_accounts
        and collection(uri) == "app.bsky.feed.like"
        and versions[-1].record.get("subject", {}).get("uri") == difference.key
    ]
    return _surplus(difference) == -len(likes) < 0


def _counts_what_is_allowed_again(difference: Difference, facts: Facts) -> bool:
    freed = facts.judged_there_alone("violatesThreadGate")
    replies = [row for row in freed if row["replyParent"] == difference.key]
    return _surplus(difference) == len(replies) > 0


def _counts_what_was_gated_later(difference: Difference, facts: Facts) -> bool:
    gated = facts.judged_here_alone("violatesThreadGate")
    replies = [row for row in gated if row["replyParent"] == difference.key]
    return _surplus(difference) == -len(replies) < 0


def _counts_forbidden_quotes(difference: Difference, facts: Facts) -> bool:
    quotes, posts = facts.sides.ours["quote"], facts.sides.ours["post"]
    forbidden = [
        uri
        for uri, row in quotes.items()
        if row["subject"] == difference.key and posts[uri]["violatesEmbeddingRules"] == "t"
    ]
    return _surplus(difference) == -len(forbidden) < 0


def _counts_a_deleted_accounts_own(difference: Difference, facts: Facts) -> bool:
    """Ours are none, theirs what stood when it was deleted."""
    counted = {"followsCount": "app.bsky.graph.follow", "postsCount": "app.bsky.feed.post"}
    wrote = [
        uri
        for uri in facts.events.versions
        if author(uri) == difference.key and collection(uri) == counted[difference.column]
    ]
    left = sum(map(facts.events.stands, wrote))
    deleted = difference.key in facts.events.deleted_accounts
    return deleted and (difference.ours, difference.theirs) == ("0", str(left))


def _counts_other_posts(difference: Difference, facts: Facts) -> bool:
    here, there = (
        [row for row in facts.only(side, "post") if row["creator"] == difference.key]
        for side in (OURS, THEIRS)
    )
    return _surplus(difference) == len(here) - len(there) != 0


# --- accounts ------------------------------------------------------------------------------------


def _has_no_document(difference: Difference, facts: Facts) -> bool:
    followed = {row["subjectDid"] for row in facts.sides.ours["follow"].values()}
    known = {author(uri) for uri in facts.events.versions}
    return difference.key in followed - known


def _was_deleted(difference: Difference, facts: Facts) -> bool:
    return difference.key in facts.events.deleted_accounts


def _ended_empty(difference: Difference, facts: Facts) -> bool:
    return difference.key in facts.events.ended_empty and difference.ours > difference.theirs


# --- outcomes ------------------------------------------------------------------------------------


def _says_what_is_explained(difference: Difference, facts: Facts) -> bool:
    """The outcome of a special record repeats what its rows say, and these differ likewise."""
    uri, side = difference.key.split(" ")[-1], OURS if difference.ours == "1" else THEIRS
    if difference.column == "inRecordTable":
        return ("record", uri, side) in facts.differences
    if difference.column == "inTypeTable":
        return (TYPE_TABLES[collection(uri)], uri, side) in facts.differences
    if difference.column == "duplicateOf":
        wanted = ("duplicate_record", uri)
        return any(found[:2] == wanted for found in facts.differences)
    flag = difference.ours or difference.theirs
    return flag in FLAGS and ("post", uri, flag) in facts.differences


# The other index has no row of it anywhere; no event tells why.
LOST = "at://did:plc:todb2zsofeqhwoeo6nlz7bjm/app.bsky.feed.like/3mbd357xiuv2b"

_HANDLE = "its subject names a repository by handle: here that is a drop"
_LOST = "lost by the other index, though its repository holds it"
_NUL = "the other index refuses a NUL, which is taken out here"
_YEAR = "a time so close to year zero is no valid datetime: here the record is a drop"
_TID = "its key is not what its lexicon asks for: here that is a drop"
_UNKNOWN = "of a collection that the other index does not know; here it is kept whole"
_GONE = "about a post that was deleted: what others wrote stays here"
_TOOK_OVER = "it took the place of a deleted one; the other index keeps it as its duplicate too"
_GATE_WENT = "the gate was deleted: judged again here, and not there"
_GATE_CAME = "the gate came later than the post: judged again here, and not there"
_ACCOUNT = "left over there of a deleted account"
_OUTCOME = "repeats what a row says that differs likewise, above"

REASONS = (
    Reason(_HANDLE, "like", THEIRS, 1, _names_a_handle),
    Reason(_HANDLE, "record", THEIRS, 1, _names_a_handle),
    Reason(_HANDLE, "post_agg", "likeCount", 1, _counts_what_names_a_handle),
    Reason(_LOST, "like", OURS, 1, _stands_in_its_repository),
    Reason(_LOST, "record", OURS, 1, _stands_in_its_repository),
    Reason(_LOST, "post_agg", "likeCount", 1, _counts_what_it_lost),
    Reason(_NUL, "post", OURS, 1, _has_a_nul),
    Reason(_NUL, "feed_item", OURS, 1, _has_a_nul),
    Reason(_NUL, "record", OURS, 1, _has_a_nul),
    Reason(_YEAR, "post", THEIRS, 1, _is_in_year_zero),
    Reason(_YEAR, "feed_item", THEIRS, 1, _is_in_year_zero),
    Reason(_YEAR, "record", THEIRS, 1, _is_in_year_zero),
    Reason(_TID, "post", THEIRS, 1, _is_keyed_by_no_tid),
    Reason(_TID, "feed_item", THEIRS, 1, _is_keyed_by_no_tid),
    Reason(_TID, "record", THEIRS, 1, _is_keyed_by_no_tid),
    Reason(
        "it counts the posts with that year and that key, and not the one with the NUL",
        *("profile_agg", "postsCount", 1, _counts_other_posts),
    ),
    Reason(
        "a time that is far ahead is the commit's here, and as it is there",
        *("post", "createdAt", 1, _is_ahead),
    ),
    Reason(
        "a profile under another key than self is a drop here, and no profile there either",
        *("record", THEIRS, 1, _is_a_second_profile),
    ),
    Reason(_UNKNOWN, "record", OURS, 247, _is_of_an_unknown_collection),
    Reason(
        "the record gives no time, and there it is the other index's clock",
        *("profile", "createdAt", 40, _is_without_a_time),
    ),
    *(
        Reason(
            "it lost the pin of a profile that was updated, though its copy of the record has it",
            *("profile", column, 1, _pin_is_in_its_own_record),
        )
        for column in ("pinnedPost", "pinnedPostCid")
    ),
    Reason(_GONE, "quote", OURS, 1, _subject_was_deleted),
    Reason(_GONE, "feed_item", OURS, 1, _subject_was_deleted),
    Reason(
        "a duplicate that is kept aside has no feed item here",
        *("feed_item", THEIRS, 3, _is_kept_aside),
    ),
    Reason(_TOOK_OVER, "duplicate_record", THEIRS, 4, _took_over),
    Reason(
        "it still names the record that was deleted, and not the one in its place",
        *("duplicate_record", "duplicateOf", 3, _is_behind_who_took_over),
    ),
    Reason(
        "a reply whose parent is missing counts as valid here until it comes",
        *("post", "invalidReplyRoot", 1, _lacks_its_parent),
    ),
    Reason(_GATE_WENT, "post", "violatesThreadGate", 5, _gate_was_deleted),
    Reason(_GATE_WENT, "post_agg", "replyCount", 1, _counts_what_is_allowed_again),
    Reason(_GATE_CAME, "post", "violatesThreadGate", 1, _thread_gate_came_later),
    Reason(_GATE_CAME, "post_agg", "replyCount", 1, _counts_what_was_gated_later),
    Reason(_GATE_CAME, "post", "violatesEmbeddingRules", 2, _post_gate_came_later),
    Reason(
        "quotes that violate embedding rules do not count here",
        *("post_agg", "quoteCount", 2, _counts_forbidden_quotes),
    ),
    Reason(_ACCOUNT, "feed_item", THEIRS, 4, _is_of_a_deleted_account),
    Reason(_ACCOUNT, "post_agg", "likeCount", 1, _counts_likes_of_deleted_accounts),
    Reason(_ACCOUNT, "profile_agg", "followsCount", 2, _counts_a_deleted_accounts_own),
    Reason(_ACCOUNT, "profile_agg", "postsCount", 2, _counts_a_deleted_accounts_own),
    Reason(
        "deleted: a row of users stays here, with the status; it has removed the actor",
        *("actor", OURS, 2, _was_deleted),
    ),
    Reason(
        "followed, and nothing else is known of it: there it has no actor",
        *("actor", OURS, 2, _has_no_document),
    ),
    Reason(
        "it does not note the rev of a commit without operations",
        *("actor_sync", "repoRev", 1, _ended_empty),
    ),
    Reason(_OUTCOME, "outcomes", "inRecordTable", 6, _says_what_is_explained),
    Reason(_OUTCOME, "outcomes", "inTypeTable", 4, _says_what_is_explained),
    Reason(_OUTCOME, "outcomes", "duplicateOf", 7, _says_what_is_explained),
    Reason(_OUTCOME, "outcomes", "extra", 8, _says_what_is_explained),
)
