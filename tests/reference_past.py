"""The little of the past that the final state does not tell, for the reference indexer.

Most of the index is a function of the records that stand. Some is not: a subject that went and came
back notifies nobody again, a mute does not reach back, subscribers hear of new posts only. What
happened *within* one phase has no order between authors (they may be delivered in any interleaving,
in batches of any size), so a phase is the finest time that is known here: it ends at a quiet point,
where all that was delivered has been carried out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

NEVER = -1


@dataclass
class Past:
    """When records were written and went, in phases."""

    phase: int = 0
    # Phase of a record's last version, and of the last time that it stopped to be indexed.
    written: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    # Versions of each record in this phase, and in all.
    versions: Counter[str] = field(default_factory=Counter)
    all_versions: Counter[str] = field(default_factory=Counter)
    # Every thread that a post was ever in, by the uri of the thread's root.
    threads: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def wrote(self, uri: str) -> None:
        """A version of a record was written."""
        self.written[uri] = self.phase
        self.versions[uri] += 1
        self.all_versions[uri] += 1

    def lost(self, uris: Iterable[str]) -> None:
        """Records were indexed and are no more."""
        for uri in uris:
            self.left[uri] = self.phase

    def quiet(self) -> None:
        """Begin the next phase."""
        self.phase += 1
        self.versions.clear()

    def touched(self, uri: str) -> bool:
        """Whether a record was written or went in this phase."""
        return self.phase in (self.written.get(uri), self.left.get(uri))

    def came_back(self, subject: str, record: str) -> bool:
        """Whether a subject may have gone and come back while a record stood that is about it."""
        went = self.left.get(subject)
        return went is not None and went >= self.written.get(record, NEVER)
