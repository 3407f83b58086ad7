"""Random histories: what some twenty accounts write, as real frames, from a seed.

They are made to collide: few accounts, few record keys (some of them no TIDs), so that records are
created under a key that was used before, two records are about one thing in any order of their
keys, likes and gates come before their posts, and a list's items before the list. Some records are
spoilt, some commits get lost, and one write may create and delete a record at once.
"""

import random
from typing import Any, Final, NamedTuple

from actors.atproto import cbor
from bench.network_account import Account, Write, text_of

START: Final = 1_735_689_600_000_000
LINK: Final = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
# In the order of bytes: keys that are no TIDs stand before, between and after those that are.
RKEYS: Final = (
    "-",
    "3lep6ejx2222a",
    "3lep6ejx2222b",
    "3lep6ejx2222c",
    "3lep6fjx2222a",
    "Z",
    "a.b",
    "~",
)
_NEVER_HELD: Final = "did:plc:neverwritesanythingatall"[:32]
_LONG: Final = "long" * 501


def _nested(levels: int) -> list[Any]:
    return [_nested(levels - 1)] if levels else []


_JUNK: Final[tuple[Any, ...]] = (
    None,
    0,
    True,
    -1,
    2**60,
    1.5,
    "",
    "nul\0nul",
    "at://did:plc:short",
    "at://alice.test/app.bsky.feed.post/3lep6ejx2222a",
    "did:plc:",
    "2024-13-45T99:99:99Z",
    "2024-02-29T12:00:00.123456789+05:30",
    "2199-01-01T00:00:00Z",
    _LONG,
    b"bytes",
    [],
    [None, "x", {"$type": "app.bsky.feed.threadgate#listRule"}],
    {},
    {"uri": "at://did:plc:a/app.bsky.feed.post/a b", "cid": LINK},
    {"nul\0": 1, "nul": 2},
    _nested(40),
)


class Sent(NamedTuple):
    """A frame and the DID of its author."""

    did: str
    frame: bytes


class History:
    """The history of a seed; `stream` is its frames in the order in which they were written."""

    def __init__(
        self, seed: int, *, users: int = 20, commits: int = 400, spoilt: float = 0.12
    ) -> None:
        self._chance = random.Random(seed)
        self._spoilt = spoilt
        self._accounts = [
            Account(seed, index, f"u{index}.test", sign=True) for index in range(users)
        ]
        self._dids = [account.did for account in self._accounts]
        self._awake: set[str] = set()
        self._now = START
        self._seq = 0
        self.stream: list[Sent] = []
        for _ in range(commits):
            self._event()

    def interleaved(self, chance: random.Random) -> list[Sent]:
        """The same frames with the authors shuffled; each author's own order stays."""
        of_author: dict[str, list[Sent]] = {}
        for sent in self.stream:
            of_author.setdefault(sent.did, []).append(sent)
        left = [list(reversed(frames)) for frames in of_author.values()]
        mixed = []
        while left:
            frames = chance.choice(left)
            mixed.append(frames.pop())
            if not frames:
                left.remove(frames)
        return mixed

    def _event(self) -> None:
        chance = self._chance
        # A few accounts write much, so that they meet their own records often.
        account = self._accounts[int(len(self._accounts) * chance.random() ** 2)]
        self._now += chance.randrange(1_000, 100_000_000)
        self._seq += 1
        roll = chance.random()
        if roll < 0.02 and account.did in self._awake:
            frame = account.sync(self._seq, self._now)
        elif roll < 0.06:
            frame = self._overwrite(account)
        else:
            count = 0 if roll > 0.98 else chance.choice((1, 1, 2, 3, 6))
            of_path: dict[Any, Any] = {}
            for writes in (self._write(account) for _ in range(count)):
                if writes:
                    of_path.setdefault(writes[0].path, writes)
            together = [write for writes in of_path.values() for write in writes]
            frame = account.commit(together, self._seq, self._now)
        self._awake.add(account.did)
        if chance.random() > 0.03:
            self.stream.append(Sent(account.did, frame))

    def _overwrite(self, account: Account) -> bytes:
        collection = self._chance.choice(_COLLECTIONS)
        free = [
            rkey for rkey in self._keys(collection) if not account.holds(f"{collection}/{rkey}")
        ]
        if not free:
            return account.commit([], self._seq, self._now)
        rkey = self._chance.choice(free)
        first, last = (self._block(account, collection, rkey) for _ in range(2))
        if first == last:
            write = Write("create", f"{collection}/{rkey}", last)
            return account.commit([write], self._seq, self._now)
        return account.commit_over(f"{collection}/{rkey}", first, last, self._seq, self._now)

    def _keys(self, collection: str) -> tuple[str, ...]:
        wrong = self._chance.random() < 0.1
        return RKEYS if collection not in _SELF or wrong else ("self",)

    def _write(self, account: Account) -> list[Write]:
        chance = self._chance
        collection = chance.choice(_COLLECTIONS)
        rkey = chance.choice(self._keys(collection))
        path = f"{collection}/{rkey}"
        if account.holds(path):
            if chance.random() < 0.5:
                return []
            block = self._block(account, collection, rkey)
            return [chance.choice((Write("delete", path, None), Write("update", path, block)))]
        block = self._block(account, collection, rkey)
        create = Write("create", path, block)
        if chance.random() < 0.03:
            return [create, Write("delete", path, None)]
        return [create]

    def _block(self, account: Account, collection: str, rkey: str) -> bytes:
        record = {
            "$type": collection,
            "createdAt": text_of(self._now - self._chance.randrange(-400_000_000, 10**12)),
            **self._fields(account, collection, rkey),
        }
        if self._chance.random() < self._spoilt:
            self._spoil(record)
        return cbor.encode(record)

    def _spoil(self, record: dict[str, Any]) -> None:
        """Take a field away, at any depth, or put there what does not belong."""
        chance = self._chance
        inner = [value for value in record.values() if isinstance(value, dict) and value]
        at = chance.choice(inner) if inner and chance.random() < 0.5 else record
        name = chance.choice(sorted(at))
        if chance.random() < 0.3:
            del at[name]
        else:
            at[name] = chance.choice(_JUNK)

    # --- records ---------------------------------------------------------------------------------

    def _did(self) -> str:
        return self._chance.choice((*self._dids, _NEVER_HELD))

    def _ref(self, *collections: str) -> dict[str, Any]:
        collection = self._chance.choice(collections)
        # Few of them, so that several accounts are about the same.
        did = self._chance.choice(self._dids[:5])
        rkey = "self" if collection in _SELF else self._chance.choice(RKEYS[:4])
        return {"uri": f"at://{did}/{collection}/{rkey}", "cid": LINK}

    def _fields(self, account: Account, collection: str, rkey: str) -> dict[str, Any]:
        chance = self._chance
        match collection.rpartition(".")[2]:
            case "post":
                return self._post()
            case "like":
                return {"subject": self._ref(_POST, _POST, _POST, _GENERATOR, _LABELER, _LIST)}
            case "repost":
                return {"subject": self._ref(_POST, _POST, _LIST), "via": self._ref(_REPOST)}
            case "bookmark":
                return {"subject": self._ref(_POST, _POST, _LIST)}
            case "follow" | "block":
                return {"subject": self._did()}
            case "listblock":
                return {"subject": self._ref(_LIST)["uri"]}
            case "list":
                return {"name": f"list {self._seq}", "purpose": "app.bsky.graph.defs#curatelist"}
            case "listitem":
                owner = account.did if chance.random() < 0.9 else self._did()
                key = chance.choice(RKEYS[:2])
                return {"list": f"at://{owner}/{_LIST}/{key}", "subject": self._did()}
            case "starterpack":
                return {"name": "pack", "list": self._ref(_LIST)["uri"], "feeds": [{"uri": "x"}]}
            case "profile":
                return {"displayName": f"name {self._seq}", "pinnedPost": self._ref(_POST)}
            case "generator":
                return {"did": "did:web:feed.test", "displayName": f"feed {self._seq}"}
            case "service":
                return {"policies": {"labelValues": [f"v{self._seq}"]}}
            case "threadgate":
                rule = f"{collection}#"
                rules: list[dict[str, Any]] = [
                    {"$type": f"{rule}mentionRule"},
                    {"$type": f"{rule}followingRule"},
                    {"$type": f"{rule}listRule", "list": self._ref(_LIST)["uri"]},
                ]
                allow = chance.sample(rules, chance.randrange(4))
                gate = {"post": f"at://{account.did}/{_POST}/{rkey}", "allow": allow}
                if chance.random() < 0.3:
                    del gate["allow"]
                return gate
            case "postgate":
                owner = account.did if chance.random() < 0.9 else self._did()
                rules = [{"$type": f"{collection}#disableRule"}]
                return {"post": f"at://{owner}/{_POST}/{rkey}", "embeddingRules": rules}
            case "verification":
                return {"subject": self._did(), "handle": "a.test", "displayName": "A"}
            case "label":
                src = account.did if chance.random() < 0.8 else self._did()
                text = text_of(self._now)
                return {"src": src, "uri": self._did(), "val": "spam", "cts": text, "neg": False}
        return {"anything": [self._seq, {"deep": "er", "link": b"\x00\x01"}]}

    def _post(self) -> dict[str, Any]:
        chance = self._chance
        fields: dict[str, Any] = {"text": f"text {self._seq} \N{SNOWMAN}", "langs": ["en"]}
        if chance.random() < 0.6:
            fields["reply"] = {"parent": self._ref(_POST), "root": self._ref(_POST)}
        if chance.random() < 0.3:
            quote: dict[str, Any] = {
                "$type": "app.bsky.embed.record",
                "record": self._ref(_POST, _POST, _LIST),
            }
            if chance.random() < 0.5:
                quote = {"$type": "app.bsky.embed.recordWithMedia", "record": quote, "media": {}}
            fields["embed"] = quote
        return fields


_POST: Final = "app.bsky.feed.post"
_REPOST: Final = "app.bsky.feed.repost"
_LIST: Final = "app.bsky.graph.list"
_GENERATOR: Final = "app.bsky.feed.generator"
_LABELER: Final = "app.bsky.labeler.service"
_SELF: Final = frozenset(
    (
        "app.bsky.actor.profile",
        _LABELER,
        "app.bsky.actor.status",
        "app.bsky.notification.declaration",
        "chat.bsky.actor.declaration",
    )
)
# What collides most is written most.
_COLLECTIONS: Final = (
    *(_POST, "app.bsky.feed.like") * 4,
    *(_REPOST, "app.bsky.bookmark", "app.bsky.graph.follow", _GENERATOR) * 2,
    "app.bsky.graph.block",
    "app.bsky.graph.listblock",
    _LIST,
    "app.bsky.graph.listitem",
    "app.bsky.graph.starterpack",
    "app.bsky.feed.threadgate",
    "app.bsky.feed.postgate",
    "app.bsky.graph.verification",
    "com.atproto.label.label",
    "com.example.unknown",
    *sorted(_SELF),
)
