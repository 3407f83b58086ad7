"""The posts of the random histories: deep threads, in any order, with what gates look at."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

POST: Final = "app.bsky.feed.post"
LIST: Final = "app.bsky.graph.list"
LINK: Final = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
THREADS: Final = 8
_NO_DIDS: Final[tuple[Any, ...]] = ("did:plc:", "alice.test", None, 7, "did:plc:a b", {})


class _Place(NamedTuple):
    """Where a post belongs: its height, which no post above it has, its parent and its root."""

    height: int
    parent: str | None
    root: str


class PostWriter:
    """Writes posts. Each uri has a place in a thread that was planned before anything was written,
    so that posts which come in any order make deep threads.
    """

    def __init__(self, chance: random.Random, dids: Sequence[str], rkeys: Sequence[str]) -> None:
        self._chance = chance
        self._dids = dids
        uris = [f"at://{did}/{POST}/{rkey}" for did in dids for rkey in rkeys]
        # Those who write most are first.
        self.roots = [f"at://{did}/{POST}/{chance.choice(rkeys)}" for did in dids[:THREADS]]
        others = [uri for uri in uris if uri not in self.roots]
        chance.shuffle(others)
        self._places: dict[str, _Place] = {}
        for number, root in enumerate(self.roots):
            thread = [root, *others[number::THREADS]]
            for height, uri in enumerate(thread):
                above = thread[max(0, height - 2) : height]
                parent = chance.choice((*above, *above[-1:])) if above else None
                self._places[uri] = _Place(height, parent, root)
        self._low = sorted(self._places, key=lambda uri: self._places[uri].height)

    def root_key(self, did: str) -> str | None:
        """The key of the post of an account that a thread begins with."""
        keys = [root.rpartition("/")[2] for root in self.roots if root.startswith(f"at://{did}/")]
        return keys[0] if keys else None

    def fields(
        self, did: str, rkey: str, number: int, ref: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """What a version of a post holds; `ref` makes a reference to some record."""
        chance = self._chance
        uri = f"at://{did}/{POST}/{rkey}"
        fields: dict[str, Any] = {"text": f"text {number} \N{SNOWMAN}", "langs": ["en"]}
        parent, root = self._reply(uri)
        if parent is not None:
            fields["reply"] = {"parent": _ref(parent), "root": _ref(root)}
        if chance.random() < 0.3:
            quote: dict[str, Any] = {
                "$type": "app.bsky.embed.record",
                "record": ref(POST, POST, POST, LIST),
            }
            if chance.random() < 0.5:
                quote = {"$type": "app.bsky.embed.recordWithMedia", "record": quote, "media": {}}
            fields["embed"] = quote
        if chance.random() < 0.4:
            fields["facets"] = [self._facet() for _ in range(chance.randint(1, 3))]
        return fields

    def _reply(self, uri: str) -> tuple[str | None, str]:
        """Parent and root; mostly those that were planned."""
        chance = self._chance
        place = self._places[uri]
        roll = chance.random()
        if roll < 0.12 or place.height == 0:
            return None, uri
        if roll < 0.8:
            return place.parent, place.root
        # Below another post, or of another thread, but never below itself.
        lower = [other for other in self._low if self._places[other].height < place.height]
        parent = chance.choice((place.parent, chance.choice(lower)))
        return parent, chance.choice(self._low)

    def _facet(self) -> dict[str, Any]:
        chance = self._chance
        features: list[Any] = []
        for _ in range(chance.randint(1, 2)):
            did = chance.choice(_NO_DIDS if chance.random() < 0.1 else self._dids)
            features.append({"$type": "app.bsky.richtext.facet#mention", "did": did})
        if chance.random() < 0.2:
            features.append({"$type": "app.bsky.richtext.facet#tag", "tag": self._dids[0]})
        return {"index": {"byteStart": 0, "byteEnd": 4}, "features": features}


def _ref(uri: str) -> dict[str, str]:
    return {"uri": uri, "cid": LINK}
