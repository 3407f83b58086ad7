"""Who is notified of what, for the reference indexer.

`candidates` is a function of the records that are indexed: what each would tell whom if nobody had
muted anything. `Notices` keeps what was told at each quiet point, for the rest: what was told
before a mute stays, and subscribers hear of new posts only.

**What is left out of comparisons** (`Notices.unsure`), because the engine may rightly come to
either result, depending on when it met what:

* what rests on a subject that went and came back while the record stood that names it (of an
  ancestor that is the post below it): "a subject that returns notifies nobody again", but something
  else may have the record computed again;
* what a muter was told before the mute, when the record or what it is about was written again
  since, or by an earlier version of the record, not of a muted thread, in the phase of the last;
  likes of a post that was in several threads, one of them muted; and what a like tells its `via`
  while the post that it is about, and so the thread, is not there;
* what subscribers were told of a post that was written more than once in the phase of its creation,
  or deleted and made again within one phase, and what else that post tells them;
* what was told to an account that was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests import reference_records as kinds
from tests.reference_decode import EPOCH, parse_time
from tests.reference_judgement import Flags, mentioned, owner
from tests.reference_past import NEVER, Past

if TYPE_CHECKING:
    from tests.reference import Record

ANCESTORS = 4
OWN_TABLE = {kinds.POST, kinds.GENERATOR, kinds.LABELER, kinds.LIST, kinds.STARTER_PACK}
OWN_TABLE |= {kinds.REPOST}
Pairs = set[tuple[str, str]]


@dataclass(frozen=True)
class Notice:
    """A notification; `thread` is where its recipient may have muted it, `rests_on` what it needs
    besides its record.
    """

    uri: str
    recipient: str
    author: str
    reason: str
    subject: str | None
    cid: str | None
    created_at: datetime
    record: str
    thread: str | None = None
    # Each with the record that names it: it is by that one that a late subject is noticed.
    rests_on: tuple[tuple[str, str], ...] = ()
    # The post that a like or repost is about, which says what thread it is in.
    about: str | None = None

    def row(self) -> dict[str, Any]:
        """Its row in `notifications`."""
        return {
            "uri": self.uri,
            "recipient_did": self.recipient,
            "author_did": self.author,
            "reason": self.reason,
            "reason_subject": self.subject,
            "cid": self.cid,
            "created_at": self.created_at,
            "engine_record_uri": self.record,
        }


@dataclass
class World:
    """What is indexed, and what follows from it."""

    indexed: dict[str, Record]
    flags: dict[str, Flags]
    joined: dict[str, str | None]

    def post(self, uri: str | None) -> Record | None:
        """The post with this uri, if it is indexed."""
        found = None if uri is None else self.indexed.get(uri)
        return found if found is not None and found.collection == kinds.POST else None

    def subject(self, uri: str) -> Record | None:
        """What may be liked or reposted, if it is indexed."""
        found = self.indexed.get(uri)
        if found is None or (
            found.collection in kinds.READERS and found.collection not in OWN_TABLE
        ):
            return None
        return found

    def thread(self, uri: str) -> str | None:
        """The root of the thread of a post; None for what is no indexed post."""
        post = self.post(uri)
        return None if post is None else post.fields["root_uri"] or post.uri


def candidates(world: World, told: dict[str, set[str]]) -> Iterator[Notice]:
    """All notifications but those of mutes and deletions; `told` are the subscribers of a post."""
    for record in world.indexed.values():
        match record.collection:
            case kinds.POST:
                yield from _of_post(world, record, told.get(record.uri, set()))
            case kinds.LIKE | kinds.REPOST:
                yield from _of_reaction(world, record)
            case kinds.FOLLOW:
                yield from _about_a_user(record, "follow", None)
            case kinds.VERIFICATION:
                yield from _about_a_user(record, "verified", record.cid)
            case kinds.PROFILE:
                yield from _of_profile(world, record)


def spoken_to(post: Record) -> set[str]:
    """Whom a post itself names: they hear of it as such, or not at all."""
    named = {post.author, *mentioned(post)}
    for uri in (post.fields["quoted_uri"], post.fields["parent_uri"]):
        if uri is not None:
            named.add(owner(uri))
    return named


def _of_post(world: World, post: Record, told: set[str]) -> Iterator[Notice]:
    mentions, quoted = mentioned(post), post.fields["quoted_uri"]
    quoted_author = None if quoted is None else owner(quoted)
    flags = world.flags[post.uri]
    thread = post.fields["root_uri"] or post.uri

    def notice(reason: str, suffix: str, did: str, *rests_on: tuple[str, str]) -> Notice:
        return Notice(
            uri=f"{post.uri}#notification/{suffix}",
            recipient=did,
            author=post.author,
            reason=reason,
            subject=post.uri,
            cid=post.cid,
            created_at=post.created_at,
            record=post.uri,
            thread=thread,
            rests_on=rests_on,
        )

    reached = {post.author, *mentions}
    for did in mentions:
        if did != post.author:
            yield notice("mention", f"mention/{did}", did)
    if quoted_author is not None and quoted_author not in reached:
        reached.add(quoted_author)
        if world.post(quoted) is not None and not flags.embeds:
            yield notice("quote", "quote", quoted_author, (quoted, post.uri))
    for did in sorted(told - spoken_to(post)):
        reached.add(did)
        yield notice("subscribed-post", f"subscribed/{did}", did)
    if flags.gated:
        return
    above: list[tuple[str, str]] = []
    at = post
    for step in range(ANCESTORS):
        ancestor = world.post(at.fields["parent_uri"])
        if ancestor is None:
            return
        above.append((ancestor.uri, at.uri))
        did = ancestor.author
        if did not in reached:
            reached.add(did)
            yield notice("reply", "reply" if step == 0 else f"reply/{did}", did, *above)
        if world.flags[ancestor.uri].gated:
            return
        at = ancestor


def _of_reaction(world: World, record: Record) -> Iterator[Notice]:
    reason = "like" if record.collection == kinds.LIKE else "repost"
    subject = record.fields["post_uri"]
    first = owner(subject)

    def notice(suffix: str, did: str, what: str, about: str) -> Notice:
        return Notice(
            uri=f"{record.uri}#notification{suffix}",
            recipient=did,
            author=record.author,
            reason=what,
            subject=about,
            cid=None,
            created_at=record.created_at,
            record=record.uri,
            thread=world.thread(subject),
            rests_on=((about, record.uri),),
            about=subject,
        )

    if first != record.author and world.subject(subject) is not None:
        yield notice("", first, reason, subject)
    via = (record.fields["via"] or {}).get("uri")
    repost = world.indexed.get(via) if isinstance(via, str) else None
    if repost is None or repost.collection != kinds.REPOST:
        return
    if repost.author not in (record.author, first):
        yield notice("/via", repost.author, f"{reason}-via-repost", repost.uri)


def _about_a_user(record: Record, reason: str, cid: str | None) -> Iterator[Notice]:
    subject = record.fields["subject_did"]
    if subject != record.author:
        yield Notice(
            f"{record.uri}#notification",
            *(subject, record.author, reason, None, cid, record.created_at, record.uri),
        )


def profile_time(profile: Record) -> datetime:
    """The time that a profile gives itself; one that is replaced by the commit's is not its own."""
    own_time = parse_time(profile.value.get("createdAt"))
    return own_time if own_time == profile.created_at else EPOCH


def _of_profile(world: World, profile: Record) -> Iterator[Notice]:
    pack = world.joined.get(profile.author)
    if pack is None or pack not in world.indexed or owner(pack) == profile.author:
        return
    yield Notice(
        uri=f"{profile.uri}#notification/starterpack",
        recipient=owner(pack),
        author=profile.author,
        reason="starterpack-joined",
        subject=pack,
        cid=None,
        created_at=profile_time(profile),
        record=profile.uri,
        rests_on=((pack, profile.uri),),
    )


@dataclass
class Notices:
    """What has been told at the last quiet point, and of what that cannot be said."""

    told: dict[str, Notice] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    # Subscribers that were told of each post when it was new, and those who may have been.
    subscribers: dict[str, set[str]] = field(default_factory=dict)
    doubtful: dict[str, set[str]] = field(default_factory=dict)
    # What a muter may have been told before, and of which that is not known any more.
    _mixed: set[str] = field(default_factory=set)

    def settle(
        self, world: World, past: Past, mutes: Pairs, subscriptions: Pairs, forgotten: Iterable[str]
    ) -> None:
        """Make what stands now; the pairs are (muter, thread) and (subscriber, author)."""
        self._hear(world, past, subscriptions)
        found: dict[str, Notice] = {}
        unsure: set[str] = set()
        mixed: set[str] = set()
        forgotten = set(forgotten)
        for notice in candidates(world, self.subscribers):
            uri, record = notice.uri, notice.record
            if any(past.came_back(subject, holder) for subject, holder in notice.rests_on):
                unsure.add(uri)
            if notice.recipient in forgotten or notice.recipient in self.doubtful.get(record, ()):
                unsure.add(uri)
            if self._is_muted(notice, past, mutes, mixed):
                continue
            found[uri] = notice
        for post, doubtful in self.doubtful.items():
            # Who is not told of a new post may be told of a reply instead.
            unsure |= {f"{post}#notification/subscribed/{did}" for did in doubtful}
            unsure |= {f"{post}#notification/reply/{did}" for did in doubtful}
        for post, subscribers in self.subscribers.items():
            # Whom the post names by now, or who had muted its thread, was not told as one of them.
            subscribers &= {
                did for did in subscribers if f"{post}#notification/subscribed/{did}" in found
            }
        self.told, self._mixed, self.unsure = found, mixed, unsure | mixed

    def forget(self, did: str) -> None:
        """Take away all that an account was told."""
        self.told = {uri: notice for uri, notice in self.told.items() if notice.recipient != did}
        for subscribers in self.subscribers.values():
            subscribers.discard(did)

    def _is_muted(self, notice: Notice, past: Past, mutes: Pairs, mixed: set[str]) -> bool:
        """Whether nobody was told because of a mute; notes in `mixed` where that is not sure."""
        uri, about = notice.uri, notice.about
        if about is not None:
            # Which thread it was in when it was looked at is not known.
            threads = (
                {about, *past.threads[about]} if notice.thread is None else past.threads[about]
            )
            several = len(threads) > 1 or notice.thread is None
            late = (about, notice.record) not in notice.rests_on and past.written.get(
                about, NEVER
            ) >= past.written.get(notice.record, NEVER)
            if (several or late) and any((notice.recipient, root) in mutes for root in threads):
                mixed.add(uri)
        if notice.thread is None or (notice.recipient, notice.thread) not in mutes:
            return False
        before = self.told.get(uri)
        if uri in self._mixed:
            mixed.add(uri)
        if before is None or before.recipient != notice.recipient:
            if past.touched(notice.record) and past.all_versions[notice.record] > 1:
                # A version before the last may have been of another thread, and told in this phase.
                mixed.add(uri)
            return True
        if any(
            past.touched(touched)
            for touched in (notice.record, *(subject for subject, _ in notice.rests_on))
        ):
            mixed.add(uri)
        return False

    def _hear(self, world: World, past: Past, subscriptions: Pairs) -> None:
        """Find the subscribers of the posts that are new."""
        posts = {
            uri: record for uri, record in world.indexed.items() if record.collection == kinds.POST
        }
        for uri in [uri for uri in self.subscribers if uri not in posts]:
            del self.subscribers[uri]
            self.doubtful.pop(uri, None)
        for uri, post in posts.items():
            now = {who for who, author in subscriptions if author == post.author}
            stood = uri in self.subscribers
            again = stood and past.left.get(uri) == past.phase
            if again or (past.versions[uri] > 1 and (now or stood)):
                doubtful = now | self.subscribers.get(uri, set())
                self.doubtful.setdefault(uri, set()).update(doubtful)
            if not stood or again:
                self.subscribers[uri] = now
