"""Why our notifications differ from the other index's; its entries are like those of the tables."""

from collections.abc import Callable

from tests.corpus.oracle_events import author
from tests.corpus.oracle_facts import Facts, Reason
from tests.corpus.oracle_reasons import LOST, post_gate_came_later, thread_gate_came_later
from tests.corpus.oracle_tables import OURS, THEIRS, Difference, Row

# A check of the notification that only one side has; it is told no more than this.
Check = Callable[[Row, Facts], bool]


def _record_was_deleted(notice: Row, facts: Facts) -> bool:
    return facts.events.was_deleted(notice["recordUri"]) and notice["reason"] != "unverified"


def _subject_was_deleted(notice: Row, facts: Facts) -> bool:
    return facts.events.was_deleted(notice["reasonSubject"]) and facts.events.stands(
        notice["recordUri"]
    )


def _thread_is_broken(notice: Row, facts: Facts) -> bool:
    """A post between the reply and the ancestor that it tells of was deleted."""
    at = notice["recordUri"]
    if notice["reason"] != "reply" or not facts.events.stands(notice["reasonSubject"]):
        return False
    while at != notice["reasonSubject"]:
        at = facts.events.known(at)[0].record["reply"]["parent"]["uri"]
        if facts.events.was_deleted(at):
            return True
    return False


def _subject_never_came(notice: Row, facts: Facts) -> bool:
    subject = notice["reasonSubject"]
    return (
        notice["did"].startswith("did:") and subject != "" and subject not in facts.events.versions
    )


def _names_a_handle(notice: Row, _facts: Facts) -> bool:
    return not notice["did"].startswith("did:")


def _about(record: dict[str, object]) -> str:
    """Whom a like, repost or follow is about."""
    subject = record["subject"]
    if isinstance(subject, dict):
        return author(subject["uri"])
    assert isinstance(subject, str)
    return subject


def _was_about_the_recipient(notice: Row, facts: Facts) -> bool:
    uri = notice["recordUri"]
    if not facts.events.was_updated(uri) or notice["reason"] not in ("like", "repost", "follow"):
        return False
    versions = facts.events.known(uri)
    first, last = _about(versions[0].record), _about(versions[-1].record)
    return first == notice["did"] != last


def _is_about_the_recipient_since_an_update(notice: Row, facts: Facts) -> bool:
    uri = notice["recordUri"]
    if not facts.events.was_updated(uri) or notice["reason"] not in ("like", "repost", "follow"):
        return False
    versions = facts.events.known(uri)
    first, last = _about(versions[0].record), _about(versions[-1].record)
    return first != notice["did"] == last


def _is_to_oneself(notice: Row, _facts: Facts) -> bool:
    return notice["did"] == notice["author"]


def _is_told_already(notice: Row, facts: Facts) -> bool:
    """The repost through which it came is the recipient's, and so is the subject itself."""
    about = _about(facts.events.record(notice["recordUri"])) if _is_via(notice) else ""
    return about == notice["did"]


def _likes_ones_own(notice: Row, facts: Facts) -> bool:
    about = _about(facts.events.record(notice["recordUri"])) if _is_via(notice) else ""
    return about == notice["author"]


def _is_via(notice: Row) -> bool:
    return notice["reason"].endswith("-via-repost")


def _thread_gate_came_later(notice: Row, facts: Facts) -> bool:
    post = facts.sides.ours["post"].get(notice["recordUri"])
    return (
        notice["reason"] == "reply"
        and post is not None
        and post["violatesThreadGate"] == "t"
        and thread_gate_came_later(post["uri"], post["replyRoot"], facts)
    )


def _post_gate_came_later(notice: Row, facts: Facts) -> bool:
    post = facts.sides.ours["post"].get(notice["recordUri"])
    return (
        notice["reason"] == "quote"
        and post is not None
        and post["violatesEmbeddingRules"] == "t"
        and post_gate_came_later(post["uri"], notice["reasonSubject"], facts)
    )


def _thread_gate_was_deleted(notice: Row, facts: Facts) -> bool:
    post = facts.sides.ours["post"].get(notice["recordUri"])
    if notice["reason"] != "reply" or post is None:
        return False
    return facts.events.was_deleted(post["replyRoot"].replace(".post/", ".threadgate/"))


def _was_verified_again(notice: Row, facts: Facts) -> bool:
    uri = notice["recordUri"]
    updated = facts.events.was_updated(uri) and facts.events.stands(uri)
    return notice["reason"] == "unverified" and updated


def _recipient_was_deleted(notice: Row, facts: Facts) -> bool:
    return notice["did"] in facts.events.deleted_accounts


def _took_over(notice: Row, facts: Facts) -> bool:
    duplicates = facts.sides.theirs["duplicate_record"]
    before = duplicates.get(notice["recordUri"], {}).get("duplicateOf")
    return before is not None and facts.events.was_deleted(before)


def _was_lost(notice: Row, facts: Facts) -> bool:
    return notice["recordUri"] == LOST and facts.events.stands(LOST)


def _follows_an_update(difference: Difference, facts: Facts) -> bool:
    """Ours is of the last version of the record, theirs of the first."""
    row = facts.row(difference)
    versions = facts.events.known(row["recordUri"])
    last, first = (
        version.cid if difference.column == "recordCid" else version.record.get("createdAt")
        for version in (versions[-1], versions[0])
    )
    return (difference.ours, difference.theirs) == (last, first)


def _has_the_time_of_the_deletion(notice: Row, facts: Facts) -> bool:
    last = facts.events.last(notice["recordUri"])
    return notice["reason"] == "unverified" and notice["sortAt"] == last.time


def _reason(why: str, column: str, count: int, check: Check) -> Reason:
    def holds(difference: Difference, facts: Facts) -> bool:
        return check(facts.row(difference), facts)

    return Reason(why, "notification", column, count, holds)


_UPDATED = "a record that was updated tells whom it is about now; there it is as it was at first"

NOTICES = (
    _reason("its record was deleted; it stays there", THEIRS, 4, _record_was_deleted),
    _reason("its subject was deleted; it stays there", THEIRS, 16, _subject_was_deleted),
    _reason(
        "a post between the reply and this ancestor was deleted: nobody above it is told here",
        *(THEIRS, 11, _thread_is_broken),
    ),
    _reason("its subject never came: here it waits for it", THEIRS, 3, _subject_never_came),
    _reason("its subject names a repository by handle", THEIRS, 1, _names_a_handle),
    _reason("nobody is told here what they do to themselves", THEIRS, 1, _is_to_oneself),
    _reason(
        "through a repost of one's own post: the recipient is told once here, of the like",
        *(THEIRS, 4, _is_told_already),
    ),
    _reason(
        "the reposter is told here, also where somebody likes a post of their own",
        *(OURS, 3, _likes_ones_own),
    ),
    _reason(
        "the thread gate came later than the reply, and holds for it here",
        *(THEIRS, 1, _thread_gate_came_later),
    ),
    _reason(
        "the post gate came later than the quote, and holds for it here",
        *(THEIRS, 2, _post_gate_came_later),
    ),
    _reason(
        "the thread gate was deleted, and the replies that it forbade stand here",
        *(OURS, 5, _thread_gate_was_deleted),
    ),
    _reason(
        "there an update is a deletion first; here a verification that stands is none lost",
        *(THEIRS, 1, _was_verified_again),
    ),
    _reason(_UPDATED, THEIRS, 3, _was_about_the_recipient),
    _reason(_UPDATED, OURS, 3, _is_about_the_recipient_since_an_update),
    Reason(_UPDATED, "notification", "recordCid", 1, _follows_an_update),
    Reason(_UPDATED, "notification", "sortAt", 1, _follows_an_update),
    _reason(
        "its time is the event's here, and there the other index's clock",
        *("sortAt", 1, _has_the_time_of_the_deletion),
    ),
    _reason(
        "to a deleted account: what others wrote about it stays here",
        *(OURS, 2, _recipient_was_deleted),
    ),
    _reason(
        "its record took the place of a deleted one; there nobody is told",
        *(OURS, 3, _took_over),
    ),
    _reason("the other index lost its record", OURS, 1, _was_lost),
)
