"""Verifying signatures: by keys that are known, without waiting for any.

A commit whose key is not known, or does not fit, waits until its account's identity was looked at
again, and what comes after it waits behind: keys change, and whoever signs with the new one is
right. What does not fit then is refused. Commits at or below the rev of their repository change
nothing, so nobody asks who signed them: after a change of keys they come again signed by the old
one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from cachetools import TTLCache

from actors.atproto import multikey, signature
from actors.atproto.errors import Reason, WireError
from actors.store.batch import AppliedCommit, Change, Dropped, IdentityState, SyncState
from actors.store.parking import NO_KEY, WRONG_KEY, Case

# Keys remembered by a shard, and for how long; each takes about 300 bytes. Identities are looked at
# daily, so no key is older than that and this.
KEPT_KEYS: Final = 100_000
KEPT_SECONDS: Final = 3600.0

Signed = AppliedCommit | SyncState
Lookup = Callable[[Sequence[str]], Mapping[str, str]]


class Sorted(NamedTuple):
    """The changes of a batch, each in the order of the stream: those to apply, and those that wait,
    with the DIDs that they wait for and why (NO_KEY, WRONG_KEY). What waits comes after the rest.
    """

    ready: list[Change]
    waiting: list[Change]
    reasons: dict[str, str]


def is_signed(change: Signed, key: str) -> bool:
    """Whether a change carries a valid signature by a key (Multikey)."""
    proof = change.signature
    assert proof is not None, "it was decoded without what is to be verified"
    try:
        return signature.is_valid(multikey.parse(key), proof.message, proof.sig)
    except WireError:
        return False  # a key that is none: nothing can be signed by it


def is_known(change: Signed, rev: str | None) -> bool:
    """Whether a change is of before a state that is indexed, so that it changes nothing."""
    if rev is None:
        return False
    return change.rev <= rev if isinstance(change, AppliedCommit) else change.rev < rev


class Verification:
    """The keys that a shard knows, and what they say of its batches.

    Args:
        monotonic: tells the time by which keys are forgotten.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keys: TTLCache[str, str] = TTLCache(KEPT_KEYS, KEPT_SECONDS, timer=monotonic)

    def sort(self, changes: Sequence[Change], keys: Lookup, revs: Lookup) -> Sorted:
        """Tell what can be verified from what must wait.

        `keys` returns those of accounts that are sure at the moment, `revs` the last applied ones
        of repositories.
        """
        signed = {each.did for each in changes if isinstance(each, Signed)}
        of_batch = {did: key for did in signed if (key := self._keys.get(did)) is not None}
        if len(of_batch) < len(signed):
            found = keys(sorted(signed - of_batch.keys()))
            self._keys.update(found)
            of_batch.update(found)
        result = _sorted(changes, of_batch, {})
        if result.reasons:
            result = _sorted(changes, of_batch, revs(sorted(result.reasons)))
        for change in changes:
            if isinstance(change, IdentityState):
                self._keys.pop(change.did, None)
        for did in result.reasons:
            # It is asked for again when the identity has been looked at.
            self._keys.pop(did, None)
        return result


def _sorted(changes: Sequence[Change], keys: Mapping[str, str], revs: Mapping[str, str]) -> Sorted:
    ready: list[Change] = []
    waiting: list[Change] = []
    reasons: dict[str, str] = {}
    changed: set[str] = set()
    for change in changes:
        if isinstance(change, IdentityState):
            changed.add(change.did)
        if not isinstance(change, Signed):
            ready.append(change)
            continue
        did = change.did
        if did in reasons:
            waiting.append(change)
            continue
        key = None if did in changed else keys.get(did)
        if is_known(change, revs.get(did)) or (key is not None and is_signed(change, key)):
            ready.append(change)
            continue
        reasons[did] = NO_KEY if key is None else WRONG_KEY
        waiting.append(change)
    return Sorted(ready, waiting, reasons)


def judged(change: Signed, case: Case, *, looked: bool) -> str | Dropped | None:
    """Judge a change that has waited: None to apply it, a reason to ask for its key again (NO_KEY,
    WRONG_KEY), or the drop that it is.

    `looked`: its account's identity was looked at after it came.
    """
    if is_known(change, case.rev):
        return None
    sure = looked or not case.stale
    if sure and case.key is not None and is_signed(change, case.key):
        return None
    if not looked or case.stale:
        return NO_KEY if case.key is None else WRONG_KEY
    detail = "it is not signed by its account" if case.key else "its account has no key"
    return Dropped(Reason.BAD_SIGNATURE, change.did, f"rev {change.rev}: {detail}")
