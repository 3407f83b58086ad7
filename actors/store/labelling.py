"""What labels do to the rows that they meet. Pure.

One row for each source, subject, version of the subject, and value. The newest label (`cts`) is
what the row says; a negation is a label like the others, and stays as a tombstone, so that an older
label that comes again brings nothing back. A label that has expired stays likewise. The result is
the same in whatever order the labels come, and however often.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from actors.atproto.label import Label

CREATED: Final = "created"
DELETED: Final = "deleted"
"""The actions of `label_events`: a label begins to hold, and ceases to."""


class Held(NamedTuple):
    """What a row says. Times are in microseconds since 1970.

    `active` is whether the label holds. One that does not, and has a time at which it expires, was
    not negated: it has expired. Rows of labels that were records have no signature.
    """

    created: int
    active: bool
    sig: bytes | None
    expires: int | None

    @property
    def rank(self) -> tuple[int, bool, bytes]:
        """Newest last; of several labels of one moment a negation, else by their signatures."""
        negated = not self.active and self.expires is None
        return self.created, negated, self.sig or b""


@dataclass(slots=True)
class Effects:
    """What a number of labels do: rows to be written, and events in their order.

    `outcomes` counts the labels: `applied`, `negated`, `expired` (long before they came), and
    `outdated` (they had come before, or a newer one had).
    """

    rows: dict[str, tuple[Label, Held]] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


def meet(labels: Iterable[tuple[str, Label]], held: Mapping[str, Held], now: int) -> Effects:
    """What labels, each with the uri of its row, do to the rows that are held, one by one."""
    effects = Effects()
    current = dict(held)
    for uri, label in labels:
        before = current.get(uri)
        after, outcome = _row(label, now)
        if before is not None and _rank(label) <= before.rank:
            effects.outcomes["outdated"] += 1
            continue
        effects.outcomes[outcome] += 1
        current[uri] = after
        effects.rows[uri] = label, after
        was_active = before is not None and before.active
        if was_active != after.active:
            effects.events.append((uri, CREATED if after.active else DELETED))
    return effects


def _rank(label: Label) -> tuple[int, bool, bytes]:
    return label.created, label.neg, label.sig


def _row(label: Label, now: int) -> tuple[Held, str]:
    if label.neg:
        # That a negation expires does not bring back what it negates.
        return Held(label.created, False, label.sig, None), "negated"
    expired = label.expires is not None and label.expires <= now
    held = Held(label.created, not expired, label.sig, label.expires)
    return held, "expired" if expired else "applied"
