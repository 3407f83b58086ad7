"""Public keys as DID documents hold them: Multikey, and the older forms with bare keys.

Sources: the atproto specification, "Cryptography", section "Public Key Encoding"; older directories
serve `EcdsaSecp256k1VerificationKey2019` and `EcdsaSecp256r1VerificationKey2019` with an
uncompressed key in base58 and no prefix that tells the curve.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

import libipld

from actors.atproto.errors import Reason, WireError, shorten

MAX_TEXT: Final = 200


class Curve(StrEnum):
    """The curves that sign repositories."""

    K256 = "k256"
    P256 = "p256"


class PublicKey(NamedTuple):
    """A public key; `point` is its SEC 1 form, compressed (33 bytes) or not (65 bytes)."""

    curve: Curve
    point: bytes


_PREFIXES: Final = {b"\xe7\x01": Curve.K256, b"\x80\x24": Curve.P256}
_OLD_TYPES: Final = {
    "EcdsaSecp256k1VerificationKey2019": Curve.K256,
    "EcdsaSecp256r1VerificationKey2019": Curve.P256,
}


@lru_cache(maxsize=4096)
def parse(text: str, method: str = "Multikey") -> PublicKey:
    """The key in a `publicKeyMultibase` of a verification method of this type.

    Raises WireError(BAD_KEY) for another type, base, curve or length. Whether the point lies on its
    curve is found out by whoever uses it.
    """
    if len(text) > MAX_TEXT or not text.startswith("z"):
        raise WireError(Reason.BAD_KEY, f"not base58: {shorten(text)}")
    try:
        _base, raw = libipld.decode_multibase(text)
    except ValueError:
        raise WireError(Reason.BAD_KEY, f"not base58: {shorten(text)}") from None
    curve = _PREFIXES.get(raw[:2])
    if curve is not None and len(raw) == 35:
        return _checked(curve, raw[2:])
    old = _OLD_TYPES.get(method)
    if old is not None:
        return _checked(old, raw)
    raise WireError(Reason.BAD_KEY, f"{shorten(method)} {shorten(text)} is no key of a known curve")


def _checked(curve: Curve, point: bytes) -> PublicKey:
    compressed = len(point) == 33 and point[0] in (2, 3)
    if not compressed and not (len(point) == 65 and point[0] == 4):
        raise WireError(Reason.BAD_KEY, f"a {curve} point of {len(point)} bytes")
    return PublicKey(curve, point)
