"""The commit object at the top of what a server gave: whether it says what it must. Pure."""

from typing import Final

from actors.atproto import car, commit, signature, tid
from actors.atproto.commit import SignedCommit
from actors.atproto.errors import Reason, WireError, shorten
from actors.atproto.multikey import PublicKey

MAX_AHEAD_SECONDS: Final = 300
"""How far in the future a revision may lie."""


def read(
    root: bytes, block: bytes | None, did: str, now: float, key: PublicKey | None
) -> SignedCommit:
    """The commit object in a block.

    Args:
        root: the CID of the block.
        block: None where it is not there.
        did: the account whose repository was asked for.
        now: Unix seconds.
        key: what it must be signed with; None: that is not looked at.

    Raises WireError: COMMIT_MISSING, BAD_COMMIT, COMMIT_MISMATCH (the repository of somebody else),
    BAD_REV, REV_IN_FUTURE, BAD_SIGNATURE, BAD_KEY.
    """
    signed = commit.read_signed(car.Car(root, {} if block is None else {root: block}))
    if signed.did != did:
        raise WireError(Reason.COMMIT_MISMATCH, f"it is signed for {shorten(signed.did)}")
    if not tid.is_valid(signed.rev):
        raise WireError(Reason.BAD_REV, f"rev is {shorten(signed.rev)}")
    if tid.to_microseconds(signed.rev) > (now + MAX_AHEAD_SECONDS) * 1_000_000:
        raise WireError(Reason.REV_IN_FUTURE, f"rev {signed.rev} lies in the future")
    if key is not None and not signature.is_valid(
        key, signature.unsigned(signed.block), signed.sig
    ):
        raise WireError(Reason.BAD_SIGNATURE, "the key of the account did not sign it")
    return signed
