"""What people and operators set between the phases of a random history."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.reference import Reference

MUTE: Final = "mute"
SUBSCRIBE: Final = "subscribe"
OPT_OUT: Final = "opt out"
OPT_IN: Final = "opt in"
FORGET: Final = "forget"
TAKE_DOWN: Final = "take down"
LET_BACK: Final = "let back"
# The accounts that write most are not refused as a whole, or little would be left.
OPEN: Final = 3
_COLLECTIONS: Final = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost")


class Setting(NamedTuple):
    """One setting: of whom, and what about (a thread, an account)."""

    kind: str
    subject: str
    about: str = ""

    def put(self, reference: Reference) -> None:
        """Make it in the reference indexer."""
        match self.kind:
            case "mute":
                reference.mute(self.subject, self.about)
            case "subscribe":
                reference.subscribe(self.subject, self.about)
            case "opt out" | "opt in":
                reference.opt_out(self.subject, forbidden=self.kind == OPT_OUT)
            case "forget":
                reference.forget(self.subject)
            case "take down":
                reference.take_down(self.subject)
            case "let back":
                reference.let_back(self.subject)


class Settings:
    """Chooses settings, and knows which stand."""

    def __init__(self, chance: random.Random, dids: Sequence[str], roots: Sequence[str]) -> None:
        self._chance = chance
        self._dids = dids
        self._roots = roots
        self._opted_out: set[str] = set()
        self._taken_down: set[str] = set()

    def some(self) -> list[Setting]:
        """The settings at one quiet point."""
        chance = self._chance
        made = [Setting(MUTE, self._who(), chance.choice(self._roots)) for _ in range(3)]
        made += [Setting(SUBSCRIBE, self._who(), self._who()) for _ in range(3)]
        for did in sorted(self._opted_out):
            if chance.random() < 0.4:
                self._opted_out.remove(did)
                made.append(Setting(OPT_IN, did))
        for subject in sorted(self._taken_down):
            if chance.random() < 0.4:
                self._taken_down.remove(subject)
                made.append(Setting(LET_BACK, subject))
        if chance.random() < 0.6:
            did = chance.choice(self._dids[OPEN:])
            self._opted_out.add(did)
            made.append(Setting(FORGET if chance.random() < 0.2 else OPT_OUT, did))
        for subject in (chance.choice(self._dids[OPEN:]), self._record()):
            if chance.random() < 0.3:
                self._taken_down.add(subject)
                made.append(Setting(TAKE_DOWN, subject))
        return made

    def _who(self) -> str:
        # Those who write most are first.
        return self._dids[int(len(self._dids) * self._chance.random() ** 2)]

    def _record(self) -> str:
        rkey = self._chance.choice(("-", "3lep6ejx2222a", "3lep6ejx2222b", "3lep6ejx2222c"))
        return f"at://{self._who()}/{self._chance.choice(_COLLECTIONS)}/{rkey}"
