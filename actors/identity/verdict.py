"""What a resolution means: the one table that decides over a handle.

A handle is an account's own only where both directions agree. It is taken away only where whoever
is asked has answered, and the check has truly failed. Silence changes nothing, with one end: where
the directory answers but the handle's own host has been silent for days.
"""

import random
from enum import StrEnum
from typing import Final, NamedTuple

from actors.identity import handles
from actors.identity.document import Document

NOTHING: Final = Document()


class Outcome(StrEnum):
    """How a resolution ended; also the name under which it is counted."""

    VALID = "valid"  # both directions agree
    NO_HANDLE = "no_handle"  # the document names none
    RESERVED = "reserved"  # the document names one that nobody can have
    MISMATCH = "mismatch"  # the handle leads to another DID
    AMBIGUOUS = "ambiguous"  # the handle leads to several DIDs
    UNRESOLVED = "unresolved"  # the handle leads to no DID
    UNREACHABLE = "unreachable"  # the handle's host is silent, and it is not, or no more, verified
    NOT_FOUND = "not_found"  # there is no document
    TOMBSTONED = "tombstoned"  # there is no document any more
    BAD_DOCUMENT = "bad_document"  # the site of a did:web serves something else
    UNSUPPORTED = "unsupported"  # a method that the protocol does not know
    DEFERRED = "deferred"  # somebody was silent: nothing is changed


ABSENT: Final = frozenset(
    (Outcome.NOT_FOUND, Outcome.TOMBSTONED, Outcome.BAD_DOCUMENT, Outcome.UNSUPPORTED)
)
"""There is no account that could have a handle, which seldom changes."""


class Missing(NamedTuple):
    """The directory, or the site, answered that there is no document."""

    outcome: Outcome
    detail: str


class Points(NamedTuple):
    """A handle leads to this DID."""

    did: str


class Nowhere(NamedTuple):
    """A handle leads to no one DID: who was asked has answered."""

    outcome: Outcome
    detail: str


class Silent(NamedTuple):
    """Whoever was asked gave no answer; `seconds` for which asking again is no use.

    `asked`: False where it was not, for reasons that have nothing to do with it.
    """

    detail: str
    seconds: float = 0.0
    asked: bool = True


class Verdict(NamedTuple):
    """What to write.

    `document` None: nothing is known of it. `settled`: `handle` is the verified one, or None for
    that there is none; else the account keeps what it has.
    """

    outcome: Outcome
    document: Document | None
    handle: str | None
    settled: bool
    problem: str | None
    wait: float = 0.0


def judge(
    did: str,
    held: str,
    document: Document | Missing | Silent,
    handle: Points | Nowhere | Silent | None,
    *,
    development: bool = False,
    silence: float = 0.0,
    grace: float = 259_200.0,
) -> Verdict:
    """Decide.

    Args:
        did: whose identity was resolved.
        held: the handle that the account is shown with now.
        document: what came of asking for its document.
        handle: what came of asking where the handle in it leads; None: it was not asked.
        development: whether `.test` is allowed.
        silence: seconds since a verdict was reached for the last time.
        grace: for how many of them a handle outlives the silence of its own host.
    """
    if isinstance(document, Silent):
        return Verdict(Outcome.DEFERRED, None, None, False, document.detail, document.seconds)
    if isinstance(document, Missing):
        return Verdict(document.outcome, NOTHING, None, True, document.detail)

    def verdict(outcome: Outcome, problem: str | None) -> Verdict:
        good = document.claimed if outcome is Outcome.VALID else None
        return Verdict(outcome, document, good, True, problem)

    claimed = document.claimed
    if claimed is None:
        return verdict(Outcome.NO_HANDLE, "its document names no valid handle")
    if handles.is_reserved(claimed, development=development):
        return verdict(Outcome.RESERVED, f"{claimed} is reserved")
    match handle:
        case Points(other) if other == did:
            return verdict(Outcome.VALID, None)
        case Points(other):
            return verdict(Outcome.MISMATCH, f"{claimed} leads to {other[:80]}")
        case Nowhere(outcome, detail):
            return verdict(outcome, detail)
        case Silent(detail, seconds, asked) if held == handles.INVALID or (
            held == claimed and (silence < grace or not asked)
        ):
            return Verdict(Outcome.DEFERRED, document, None, False, detail, seconds)
        case Silent(detail):
            return verdict(Outcome.UNREACHABLE, detail)
        case None:
            raise ValueError(f"{claimed} of {did} was not asked about")


class Intervals(NamedTuple):
    """Seconds until an identity is looked at again.

    `valid` and `invalid` follow a verdict; `error` follows silence and doubles up to `error_most`.
    """

    valid: float = 86_400.0
    invalid: float = 3_600.0
    error: float = 120.0
    error_most: float = 21_600.0

    def after(self, verdict: Verdict, failures: int, chance: random.Random) -> float:
        """Seconds after a verdict; `failures` came before it in a row.

        A share is left to chance, so that what was looked at together is not for ever.
        """
        if verdict.outcome is Outcome.VALID:
            seconds = self.valid
        elif verdict.outcome is Outcome.DEFERRED:
            seconds = min(self.error * 2.0 ** min(failures, 30), self.error_most)
        elif verdict.outcome in ABSENT:
            seconds = min(self.invalid * 2.0 ** min(failures, 30), self.valid)
        else:
            seconds = self.invalid
        return max(seconds * (1.0 - 0.1 * chance.random()), verdict.wait)
