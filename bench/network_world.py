"""What the accounts of the synthetic network know of each other, and what is popular among it."""

import hashlib
import random
from typing import Any, Final, NamedTuple

from bench.network_account import Account, did_of

RECENT_POSTS: Final = 20_000
HOT_POSTS: Final = 100
RECENT_THINGS: Final = 1_000


class Post(NamedTuple):
    """A post that may be liked, reposted, quoted and answered."""

    number: int
    uri: str
    cid: str
    author: int
    root_uri: str
    root_cid: str

    @property
    def ref(self) -> dict[str, Any]:
        """The strong reference to this post."""
        return {"uri": self.uri, "cid": self.cid}

    @property
    def root(self) -> dict[str, Any]:
        """The strong reference to the first post of its thread."""
        return {"uri": self.root_uri, "cid": self.root_cid}


class Thing(NamedTuple):
    """A list, feed generator, labeler, starter pack or repost: something to refer to."""

    number: int
    uri: str
    cid: str
    author: int

    @property
    def ref(self) -> dict[str, Any]:
        """The strong reference to this record."""
        return {"uri": self.uri, "cid": self.cid}


class World:
    """The living accounts, and what was posted lately. Bounded, however long the run is."""

    def __init__(self, seed: int, chance: random.Random) -> None:
        self.accounts: list[Account] = []
        self.made = 0
        self._seed = seed
        self._chance = chance
        self._numbers = 0
        self._posts: list[Post] = []
        self._newest_post = -1
        self._hot: list[Post] = []
        self._things: dict[str, list[Thing]] = {}

    def author(self) -> Account:
        """Somebody who writes now: a few write most."""
        accounts = self.accounts
        return accounts[int(len(accounts) * self._chance.random() ** 2)]

    def person(self) -> tuple[int, str]:
        """Index and DID of somebody to follow or mention; the oldest are the best known."""
        index = int(self.made * self._chance.random() ** 3)
        return index, did_of(self._seed, index)

    def add_post(self, author: int, uri: str, cid: str, root: dict[str, Any] | None) -> None:
        """Make a post known; for a reply `root` is the reference to the root of its thread."""
        self._numbers += 1
        top = root or {"uri": uri, "cid": cid}
        post = Post(self._numbers, uri, cid, author, top["uri"], top["cid"])
        self._newest_post = (self._newest_post + 1) % RECENT_POSTS
        if len(self._posts) < RECENT_POSTS:
            self._posts.append(post)
        else:
            self._posts[self._newest_post] = post
        if len(self._hot) < HOT_POSTS:
            self._hot.append(post)
        elif root is None and self._chance.random() < 0.005:
            self._hot[self._chance.randrange(HOT_POSTS)] = post

    def post(self) -> Post | None:
        """A post that somebody sees now: one of the hot ones, or else a recent one."""
        if not self._posts:
            return None
        chance = self._chance.random
        if chance() < 0.35:
            return self._hot[int(len(self._hot) * chance() ** 3)]
        back = int(len(self._posts) * chance() ** 3)
        return self._posts[(self._newest_post - back) % len(self._posts)]

    def add_thing(self, kind: str, author: int, uri: str, cid: str) -> None:
        """Make a record of another kind known, under the name of its collection."""
        self._numbers += 1
        # A key may be used again after a deletion, so the number is the uri's, not the record's.
        number = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:6], "big")
        thing = Thing(number, uri, cid, author)
        things = self._things.setdefault(kind, [])
        if len(things) < RECENT_THINGS:
            things.append(thing)
        else:
            things[self._numbers % RECENT_THINGS] = thing

    def thing(self, kind: str, author: int | None = None) -> Thing | None:
        """Some record of this collection; of this author's where one is named."""
        things = self._things.get(kind)
        if author is not None and things:
            things = [thing for thing in things[-50:] if thing.author == author]
        if not things:
            return None
        return things[int(len(things) * self._chance.random() ** 2)]
