"""The records that accounts of the synthetic network write, a method for each collection."""

import hashlib
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from actors.atproto import cid, uri
from bench.network_account import Account, text_of
from bench.network_text import LANGUAGES, TAGS, rich_text, words
from bench.network_world import Post, World

Record = dict[str, Any]


class Draft(NamedTuple):
    """A record to be written. `rkey` None asks for a new key; `token` makes it once per account."""

    record: Record
    rkey: str | None = None
    token: int | None = None
    root: Record | None = None


Maker = Callable[[Account, int], Draft | None]


class Records:
    """Makes records of every collection. A maker gives None where it finds nothing to refer to."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.makers: Final[dict[str, Maker]] = {
            "app.bsky.feed.like": self._like,
            "app.bsky.feed.post": self._post,
            "app.bsky.graph.follow": self._follow,
            "app.bsky.feed.repost": self._repost,
            "app.bsky.actor.profile": self.profile,
            "app.bsky.actor.status": self._status,
            "app.bsky.bookmark": self._bookmark,
            "app.bsky.feed.generator": self._generator,
            "app.bsky.feed.postgate": self._postgate,
            "app.bsky.feed.threadgate": self._threadgate,
            "app.bsky.graph.block": self._block,
            "app.bsky.graph.list": self._list,
            "app.bsky.graph.listblock": self._listblock,
            "app.bsky.graph.listitem": self._listitem,
            "app.bsky.graph.starterpack": self._starterpack,
            "app.bsky.graph.verification": self._verification,
            "app.bsky.labeler.service": self._labeler,
            "app.bsky.notification.declaration": self._notification_declaration,
            "chat.bsky.actor.declaration": self._chat_declaration,
            "com.atproto.label.label": self._label,
            "com.example.reading.entry": self._unknown,
        }

    def profile(self, _account: Account, now: int) -> Draft:
        record: Record = {
            "$type": "app.bsky.actor.profile",
            "displayName": words(self._chance, 1, 3)[:60],
            "description": words(self._chance, 3, 20)[:200],
            "createdAt": text_of(now),
        }
        if self._chance.random() < 0.7:
            record["avatar"] = self._blob("image/jpeg")
        if self._chance.random() < 0.3:
            record["banner"] = self._blob("image/jpeg")
        return Draft(record, "self")

    def _like(self, _account: Account, now: int) -> Draft | None:
        roll = self._chance.random()
        kind = "app.bsky.feed.generator" if roll < 0.01 else "app.bsky.labeler.service"
        subject = self._world.thing(kind) if roll < 0.012 else self._world.post()
        if subject is None:
            return None
        record: Record = {
            "$type": "app.bsky.feed.like",
            "subject": subject.ref,
            "createdAt": text_of(now),
        }
        self._add_via(record)
        return Draft(record, None, _token(subject.number, 0))

    def _repost(self, _account: Account, now: int) -> Draft | None:
        subject = self._world.post()
        if subject is None:
            return None
        record: Record = {
            "$type": "app.bsky.feed.repost",
            "subject": subject.ref,
            "createdAt": text_of(now),
        }
        self._add_via(record)
        return Draft(record, None, _token(subject.number, 1))

    def _add_via(self, record: Record) -> None:
        via = self._world.thing("app.bsky.feed.repost") if self._chance.random() < 0.03 else None
        if via is not None:
            record["via"] = via.ref

    def _bookmark(self, _account: Account, now: int) -> Draft | None:
        subject = self._world.post()
        if subject is None:
            return None
        record = {
            "$type": "app.bsky.bookmark",
            "subject": subject.ref,
            "createdAt": text_of(now),
        }
        return Draft(record, None, _token(subject.number, 2))

    def _post(self, _account: Account, now: int) -> Draft:
        chance = self._chance.random
        record: Record = {"$type": "app.bsky.feed.post", "createdAt": text_of(now)}
        if chance() < 0.25:
            did = self._world.person()[1] if chance() < 0.4 else None
            record["text"], record["facets"] = rich_text(self._chance, did)
        else:
            record["text"] = words(self._chance, 0 if chance() < 0.03 else 2, 35)[:290]
        several = chance() < 0.05
        if chance() < 0.85:
            record["langs"] = sorted({self._chance.choice(LANGUAGES) for _ in range(1 + several)})
        if chance() < 0.05:
            record["tags"] = self._chance.sample(TAGS, self._chance.randint(1, 3))
        root = None
        if chance() < 0.4:
            parent = self._world.post()
            if parent is not None:
                root = parent.root
                record["reply"] = {"root": root, "parent": parent.ref}
        if chance() < 0.35:
            self._add_embed(record, self._world.post())
        return Draft(record, None, None, root)

    def _add_embed(self, record: Record, quoted: Post | None) -> None:
        roll = self._chance.random()
        images = {
            "$type": "app.bsky.embed.images",
            "images": [
                {
                    "alt": words(self._chance, 0, 8),
                    "image": self._blob("image/jpeg"),
                    "aspectRatio": {"width": 1600, "height": 1200},
                }
                for _ in range(self._chance.randint(1, 4))
            ],
        }
        if quoted is not None and roll < 0.25:
            record["embed"] = {"$type": "app.bsky.embed.record", "record": quoted.ref}
        elif quoted is not None and roll < 0.3:
            record["embed"] = {
                "$type": "app.bsky.embed.recordWithMedia",
                "record": {"$type": "app.bsky.embed.record", "record": quoted.ref},
                "media": images,
            }
        elif roll < 0.65:
            record["embed"] = images
        elif roll < 0.9:
            record["embed"] = {
                "$type": "app.bsky.embed.external",
                "external": {
                    "uri": f"https://example.com/{self._chance.randrange(100_000)}",
                    "title": words(self._chance, 2, 8),
                    "description": words(self._chance, 4, 20),
                },
            }
        else:
            record["embed"] = {
                "$type": "app.bsky.embed.video",
                "video": self._blob("video/mp4"),
                "aspectRatio": {"width": 1920, "height": 1080},
            }

    def _follow(self, account: Account, now: int) -> Draft | None:
        return self._about_person("app.bsky.graph.follow", account, now, 3)

    def _block(self, account: Account, now: int) -> Draft | None:
        return self._about_person("app.bsky.graph.block", account, now, 4)

    def _about_person(self, kind: str, account: Account, now: int, place: int) -> Draft | None:
        index, did = self._world.person()
        if index == account.index:
            return None
        record = {"$type": kind, "subject": did, "createdAt": text_of(now)}
        return Draft(record, None, _token(index, place))

    def _verification(self, account: Account, now: int) -> Draft | None:
        draft = self._about_person("app.bsky.graph.verification", account, now, 5)
        if draft is not None and draft.token is not None:
            draft.record["handle"] = f"u{draft.token >> 3}.network.test"
            draft.record["displayName"] = words(self._chance, 1, 2)
        return draft

    def _list(self, _account: Account, now: int) -> Draft:
        purpose = self._chance.choice(("curatelist", "modlist", "referencelist"))
        record = {
            "$type": "app.bsky.graph.list",
            "purpose": f"app.bsky.graph.defs#{purpose}",
            "name": words(self._chance, 1, 3)[:60],
            "description": words(self._chance, 2, 12),
            "createdAt": text_of(now),
        }
        return Draft(record)

    def _listitem(self, account: Account, now: int) -> Draft | None:
        parent = self._world.thing("app.bsky.graph.list", account.index)
        index, did = self._world.person()
        if parent is None:
            return None
        record = {
            "$type": "app.bsky.graph.listitem",
            "list": parent.uri,
            "subject": did,
            "createdAt": text_of(now),
        }
        return Draft(record, None, _token(parent.number << 32 | index, 6))

    def _listblock(self, _account: Account, now: int) -> Draft | None:
        subject = self._world.thing("app.bsky.graph.list")
        if subject is None:
            return None
        record = {
            "$type": "app.bsky.graph.listblock",
            "subject": subject.uri,
            "createdAt": text_of(now),
        }
        return Draft(record, None, _token(subject.number, 7))

    def _starterpack(self, account: Account, now: int) -> Draft | None:
        parent = self._world.thing("app.bsky.graph.list", account.index)
        if parent is None:
            return None
        record = {
            "$type": "app.bsky.graph.starterpack",
            "name": words(self._chance, 1, 3)[:50],
            "description": words(self._chance, 2, 12),
            "list": parent.uri,
            "feeds": [],
            "createdAt": text_of(now),
        }
        return Draft(record)

    def _generator(self, account: Account, now: int) -> Draft:
        record = {
            "$type": "app.bsky.feed.generator",
            "did": "did:web:feeds.network.test",
            "displayName": words(self._chance, 1, 2)[:24],
            "description": words(self._chance, 2, 12),
            "createdAt": text_of(now),
        }
        return Draft(record, f"feed-{account.records}")

    def _labeler(self, _account: Account, now: int) -> Draft:
        record = {
            "$type": "app.bsky.labeler.service",
            "policies": {"labelValues": ["spam", "rude", "!warn"]},
            "createdAt": text_of(now),
        }
        return Draft(record, "self")

    def _threadgate(self, account: Account, now: int) -> Draft | None:
        return self._gate("app.bsky.feed.threadgate", account, now)

    def _postgate(self, account: Account, now: int) -> Draft | None:
        return self._gate("app.bsky.feed.postgate", account, now)

    def _gate(self, kind: str, account: Account, now: int) -> Draft | None:
        posts = [own.rkey for own in account.own if own.collection == "app.bsky.feed.post"]
        if not posts:
            return None
        rkey = self._chance.choice(posts)
        record: Record = {
            "$type": kind,
            "post": uri.make(account.did, "app.bsky.feed.post", rkey),
            "createdAt": text_of(now),
        }
        if kind == "app.bsky.feed.postgate":
            record["embeddingRules"] = [{"$type": "app.bsky.feed.postgate#disableRule"}]
        elif self._chance.random() < 0.8:
            rules = ("mentionRule", "followingRule", "followerRule")
            allowed = self._chance.sample(rules, self._chance.randrange(3))
            record["allow"] = [{"$type": f"app.bsky.feed.threadgate#{rule}"} for rule in allowed]
        return Draft(record, rkey)

    def _status(self, _account: Account, now: int) -> Draft:
        record = {
            "$type": "app.bsky.actor.status",
            "status": "app.bsky.actor.status#live",
            "durationMinutes": self._chance.randint(5, 240),
            "createdAt": text_of(now),
        }
        return Draft(record, "self")

    def _notification_declaration(self, _account: Account, _now: int) -> Draft:
        allowed = self._chance.choice(("followers", "mutuals", "none"))
        kind = "app.bsky.notification.declaration"
        return Draft({"$type": kind, "allowSubscriptions": allowed}, "self")

    def _chat_declaration(self, _account: Account, _now: int) -> Draft:
        allowed = self._chance.choice(("all", "following", "none"))
        return Draft({"$type": "chat.bsky.actor.declaration", "allowIncoming": allowed}, "self")

    def _label(self, account: Account, now: int) -> Draft | None:
        subject = self._world.post()
        if subject is None:
            return None
        record = {
            "$type": "com.atproto.label.label",
            "ver": 1,
            "src": account.did,
            "uri": subject.uri,
            "val": self._chance.choice(("spam", "rude", "spoiler")),
            "cts": text_of(now),
        }
        return Draft(record)

    def _unknown(self, _account: Account, now: int) -> Draft:
        record = {
            "$type": "com.example.reading.entry",
            "title": words(self._chance, 1, 6),
            "pages": self._chance.randrange(1000),
            "digest": self._chance.randbytes(12),
            "finished": self._chance.random() < 0.5,
            "createdAt": text_of(now),
        }
        return Draft(record)

    def _blob(self, kind: str) -> Record:
        digest = hashlib.sha256(self._chance.randbytes(8)).digest()
        size = self._chance.randrange(20_000, 900_000)
        return {"$type": "blob", "ref": cid.RAW + digest, "mimeType": kind, "size": size}


def _token(number: int, place: int) -> int:
    """What a record is about, as one number: the subject's, and the kind's place."""
    return number << 3 | place
