"""Verifying the signatures of a batch: by keys that are known, without waiting for any.

A commit whose key is not known, or does not fit, waits until its account's identity was looked at
again: keys change, and whoever signs with the new one is right. What does not fit then is dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cachetools import LRUCache

from actors.atproto import multikey, signature
from actors.atproto.errors import Reason, WireError
from actors.store.batch import AppliedCommit, Change, Dropped, IdentityState, SyncState
from actors.store.parking import NO_KEY, WRONG_KEY

# Keys remembered by a shard; each takes about 300 bytes.
KEPT_KEYS: Final = 100_000

Lookup = Callable[[Sequence[str]], Mapping[str, str]]


def is_signed(change: AppliedCommit | SyncState, key: str) -> bool:
    """Whether a change carries a valid signature by a key (Multikey)."""
    proof = change.signature
    assert proof is not None, "it was decoded without what is to be verified"
    try:
        return signature.is_valid(multikey.parse(key), proof.message, proof.sig)
    except WireError:
        return False  # a key that is none: nothing can be signed by it


class Verification:
    """The keys that a shard knows, and what they say of its batches."""

    def __init__(self) -> None:
        self._keys: LRUCache[str, str] = LRUCache(KEPT_KEYS)

    def unproven(self, changes: Sequence[Change], lookup: Lookup) -> dict[str, str]:
        """Return the DIDs of which some change cannot be verified by the keys that are known, and
        why: NO_KEY or WRONG_KEY.
        """
        for change in changes:
            if isinstance(change, IdentityState):
                self._keys.pop(change.did, None)
        signed = [each for each in changes if isinstance(each, AppliedCommit | SyncState)]
        missing = sorted({each.did for each in signed if each.did not in self._keys})
        if missing:
            self._keys.update(lookup(missing))
        unproven: dict[str, str] = {}
        for change in signed:
            key = self._keys.get(change.did)
            if key is None or not is_signed(change, key):
                unproven[change.did] = NO_KEY if key is None else WRONG_KEY
                # It is asked for again when the identity has been looked at.
                self._keys.pop(change.did, None)
        return unproven


def proven(changes: Sequence[Change], lookup: Lookup) -> tuple[list[Change], list[Dropped]]:
    """Split changes, whose identities were looked at by now, into those to apply and drops."""
    signed = {each.did for each in changes if isinstance(each, AppliedCommit | SyncState)}
    keys = lookup(sorted(signed))
    kept: list[Change] = []
    drops: list[Dropped] = []
    for change in changes:
        if not isinstance(change, AppliedCommit | SyncState):
            kept.append(change)
            continue
        key = keys.get(change.did)
        if key is not None and is_signed(change, key):
            kept.append(change)
            continue
        detail = "it is not signed by its account" if key else "its account has no key"
        drops.append(Dropped(Reason.BAD_SIGNATURE, change.did, f"rev {change.rev}: {detail}"))
    return kept, drops
