"""Random histories: what some twenty accounts write, as real frames, from a seed.

They are made to collide: few accounts, few record keys (some of them no TIDs), so that records are
created under a key that was used before, two records are about one thing in any order of their
keys, likes and gates come before their posts, and a list's items before the list. Some records are
spoilt, some commits get lost, and one write may create and delete a record at once.

Replies form deep threads whose posts come in any order; some name another root than their thread's.
No post is above itself. What the rules of thread gates ask for (follows to or by the accounts with
such gates, the lists that gates name) is written first and stays, as a later follow judges nothing
again.

With `lives`, accounts are hidden, deleted and come back, go on writing meanwhile, and between the
phases of a history come settings: muted threads, subscriptions, opt-outs, takedowns.
"""

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from actors.atproto import cbor
from actors.atproto import frames as wire
from bench.network_account import Account, Write, text_of
from tests.junk import JUNK, LINK
from tests.posts import PostWriter
from tests.settings import Setting, Settings

START: Final = 1_735_689_600_000_000
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
# Accounts whose thread gates ask who follows whom; and the key of every account's list for gates.
GATEKEEPERS: Final = 5
GATE_LIST: Final = "gate"
_STATUSES: Final = (
    *("deactivated", "deactivated", "takendown", "suspended", "deleted", "deleted"),
    *("unheard-of", None),
)
POST_KEYS: Final = ("-", "3lep6ejx2222a", "3lep6ejx2222c", "a.b")
_NEVER_HELD: Final = "did:plc:neverwritesanythingatall"[:32]


class Sent(NamedTuple):
    """A frame and the DID of its author."""

    did: str
    frame: bytes


class Phase(NamedTuple):
    """Settings, made when all before has been carried out, and the frames after that."""

    settings: list[Setting]
    stream: list[Sent]


class History:
    """The history of a seed; `stream` is its frames in the order in which they were written.

    `commits` come in so many `phases`, before which there is one more with what gates ask for.
    """

    def __init__(
        self,
        seed: int,
        *,
        users: int = 20,
        commits: int = 400,
        spoilt: float = 0.12,
        phases: int = 1,
        lives: bool = False,
    ) -> None:
        self._chance = random.Random(seed)
        self._spoilt = spoilt
        self._seed = seed
        self._accounts = [self._account(index) for index in range(users)]
        self._dids = [account.did for account in self._accounts]
        self._posts = PostWriter(self._chance, self._dids, POST_KEYS)
        self._awake: set[str] = set()
        self._away: set[str] = set()
        self._now = START
        self._seq = 0
        self._lives = lives
        self.operations = 0
        self.phases = [Phase([], [])]
        for account in self._accounts:
            self._found(account)
        settings = Settings(self._chance, self._dids, self._posts.roots)
        for number in range(phases):
            self.phases.append(Phase(settings.some() if lives and number else [], []))
            for _ in range(commits // phases):
                self._event()
        self.phases.append(Phase(settings.some() if lives else [], []))

    @property
    def stream(self) -> list[Sent]:
        """The frames of all phases."""
        return [sent for phase in self.phases for sent in phase.stream]

    def _account(self, index: int) -> Account:
        return Account(self._seed, index, f"u{index}.test", sign=True)

    def _found(self, account: Account) -> None:
        """Write what the rules of gates ask for."""
        chance = self._chance
        others = chance.sample(self._dids, 5)
        gate_list = f"at://{account.did}/{_LIST}/{GATE_LIST}"
        writes = []
        for number, did in enumerate(others):
            if did != account.did:
                follow = {"$type": _FOLLOW, "createdAt": text_of(self._now), "subject": did}
                writes.append(Write("create", f"{_FOLLOW}/first{number}", cbor.encode(follow)))
        for number, did in enumerate(chance.sample(self._dids, 3)):
            item = {"$type": _ITEM, "createdAt": text_of(self._now), "subject": did}
            block = cbor.encode({**item, "list": gate_list})
            writes.append(Write("create", f"{_ITEM}/first{number}", block))
        self._now += 1_000_000
        self._seq += 1
        self._send(account, account.commit(writes, self._seq, self._now))
        self._awake.add(account.did)

    def _send(self, account: Account, frame: bytes) -> None:
        self.phases[-1].stream.append(Sent(account.did, frame))

    def _event(self) -> None:
        chance = self._chance
        # A few accounts write much, so that they meet their own records often.
        account = self._accounts[int(len(self._accounts) * chance.random() ** 2)]
        self._now += chance.randrange(1_000, 100_000_000)
        self._seq += 1
        if self._lives and chance.random() < (0.4 if account.did in self._away else 0.02):
            self._send(account, self._life(account))
            return
        roll = chance.random()
        if roll < 0.02 and account.did in self._awake:
            frame = account.sync(self._seq, self._now)
        elif roll < 0.05:
            frame = self._overwrite(account)
        else:
            count = 0 if roll > 0.98 else chance.choice((1, 1, 2, 3, 6))
            of_path: dict[Any, Any] = {}
            for writes in (self._write(account) for _ in range(count)):
                if writes:
                    of_path.setdefault(writes[0].path, writes)
            together = [write for writes in of_path.values() for write in writes]
            self.operations += len(together)
            frame = account.commit(together, self._seq, self._now)
        self._awake.add(account.did)
        if chance.random() > 0.03:
            self._send(account, frame)

    def _life(self, account: Account) -> bytes:
        """Tell that something happened to an account itself."""
        chance = self._chance
        body: dict[str, Any] = {"seq": self._seq, "did": account.did, "time": text_of(self._now)}
        if chance.random() < 0.15:
            return wire.encode("#identity", body)
        away = account.did in self._away
        status = chance.choice(_STATUSES) if not away or chance.random() < 0.2 else "active"
        if status == "deleted":
            # Its repository is gone; one that comes back begins anew.
            self._accounts[account.index] = self._account(account.index)
            self._awake.discard(account.did)
        (self._away.discard if status == "active" else self._away.add)(account.did)
        if status is not None and (status != "active" or chance.random() < 0.1):
            body["status"] = status
        return wire.encode("#account", {**body, "active": status == "active"})

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
        if collection in (_POST, _THREAD_GATE, _POST_GATE):
            return POST_KEYS
        wrong = self._chance.random() < 0.1
        return RKEYS if collection not in _SELF or wrong else ("self",)

    def _write(self, account: Account) -> list[Write]:
        chance = self._chance
        collection = chance.choice(_COLLECTIONS)
        rkey = chance.choice(self._keys(collection))
        if collection == _THREAD_GATE and chance.random() < 0.7:
            rkey = self._posts.root_key(account.did) or rkey
        path = f"{collection}/{rkey}"
        if account.holds(path):
            if chance.random() < 0.4:
                return []
            if chance.random() < (0.1 if collection == _POST else 0.4):
                return [Write("delete", path, None)]
            return [Write("update", path, self._block(account, collection, rkey))]
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
            at[name] = chance.choice(JUNK)

    # --- records ---------------------------------------------------------------------------------

    def _followed(self, account: Account) -> str:
        """Whom an account follows later: nobody for whom that opens a gate."""
        gatekeepers, others = self._dids[:GATEKEEPERS], ("did:plc:one", "did:plc:other")
        if account.did in gatekeepers:
            return self._chance.choice(others)
        return self._chance.choice((*self._dids[GATEKEEPERS:], *others))

    def _did(self) -> str:
        return self._chance.choice((*self._dids, _NEVER_HELD))

    def _ref(self, *collections: str) -> dict[str, Any]:
        collection = self._chance.choice(collections)
        # Few of them, so that several accounts are about the same.
        did = self._chance.choice(self._dids[:6])
        if collection == _POST:
            rkey = self._chance.choice(POST_KEYS)
        else:
            rkey = "self" if collection in _SELF else self._chance.choice(RKEYS[:5])
        return {"uri": f"at://{did}/{collection}/{rkey}", "cid": LINK}

    def _fields(self, account: Account, collection: str, rkey: str) -> dict[str, Any]:
        chance = self._chance
        match collection.rpartition(".")[2]:
            case "post":
                return self._posts.fields(account.did, rkey, self._seq, self._ref)
            case "like":
                others = (_GENERATOR, _LABELER, _LIST, _REPOST, _PACK, "com.example.unknown")
                fields = {"subject": self._ref(*(_POST,) * 6, *others)}
                return self._by_way_of(fields)
            case "repost":
                return self._by_way_of({"subject": self._ref(_POST, _POST, _POST, _LIST)})
            case "bookmark":
                return {"subject": self._ref(_POST, _POST, _LIST)}
            case "follow":
                return {"subject": self._followed(account)}
            case "block":
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
                pack = {"joinedViaStarterPack": self._ref(_PACK)} if chance.random() < 0.6 else {}
                name = f"name {self._seq}"
                return {"displayName": name, "pinnedPost": self._ref(_POST), **pack}
            case "generator":
                return {"did": "did:web:feed.test", "displayName": f"feed {self._seq}"}
            case "service":
                return {"policies": {"labelValues": [f"v{self._seq}"]}}
            case "threadgate":
                rule = f"{collection}#"
                gate_list = f"at://{account.did}/{_LIST}/{GATE_LIST}"
                rules: list[dict[str, Any]] = [
                    {"$type": f"{rule}mentionRule"},
                    {"$type": f"{rule}listRule", "list": gate_list},
                    {"$type": f"{rule}listRule", "list": f"at://{account.did}/{_LIST}/nothing"},
                ]
                if account.did in self._dids[:GATEKEEPERS]:
                    names = ("following", "follower", "follower")
                    rules[1:] = [{"$type": f"{rule}{name}Rule"} for name in names]
                allow = chance.sample(rules, chance.choice((0, 1, 1, 1, 2)))
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

    def _by_way_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self._chance.random() < 0.5:
            fields["via"] = self._ref(_REPOST)
        return fields


_POST: Final = "app.bsky.feed.post"
_REPOST: Final = "app.bsky.feed.repost"
_LIST: Final = "app.bsky.graph.list"
_THREAD_GATE: Final = "app.bsky.feed.threadgate"
_POST_GATE: Final = "app.bsky.feed.postgate"
_ITEM: Final = "app.bsky.graph.listitem"
_FOLLOW: Final = "app.bsky.graph.follow"
_PACK: Final = "app.bsky.graph.starterpack"
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
    *(_POST, _POST, _POST, "app.bsky.feed.like", "app.bsky.feed.like") * 5,
    *(_REPOST, _REPOST, _FOLLOW, _THREAD_GATE, _POST_GATE) * 2,
    *(_GENERATOR, "app.bsky.bookmark", "app.bsky.graph.verification") * 2,
    "app.bsky.graph.block",
    "app.bsky.graph.listblock",
    _LIST,
    _ITEM,
    _PACK,
    "com.atproto.label.label",
    "com.example.unknown",
    *sorted(_SELF),
)


def interleaved(stream: Sequence[Sent], chance: random.Random) -> list[Sent]:
    """The same frames with the authors shuffled; each author's own order stays."""
    of_author: dict[str, list[Sent]] = {}
    for sent in stream:
        of_author.setdefault(sent.did, []).append(sent)
    left = [list(reversed(frames)) for frames in of_author.values()]
    mixed = []
    while left:
        frames = chance.choice(left)
        mixed.append(frames.pop())
        if not frames:
            left.remove(frames)
    return mixed
