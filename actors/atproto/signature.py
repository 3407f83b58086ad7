"""Signatures of repositories and labels: ECDSA over the SHA-256 of DAG-CBOR, on two curves.

A signature is r and s, 32 bytes each; the lower of the two values of s that fit is the only one
allowed on both curves, or everybody could make a second signature of anything. Source: the atproto
specification, "Cryptography", section "ECDSA Signature Malleability".
"""

import hashlib
from functools import lru_cache
from typing import Final

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from actors.atproto import cbor
from actors.atproto.errors import Reason, WireError
from actors.atproto.multikey import Curve, PublicKey

SIZE: Final = 64
_ORDERS: Final = {
    Curve.K256: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    Curve.P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
_PREHASHED: Final = ec.ECDSA(Prehashed(hashes.SHA256()))


def unsigned(block: bytes) -> bytes:
    """The bytes that an object's signature is over: its DAG-CBOR without the entry `sig`.

    The entries that stay are taken as they are, so nothing is lost by decoding. Raises WireError
    (BAD_CBOR) where it is not a map with one such entry.
    """
    major, count, offset = cbor.head(block, 0)
    if major != cbor.MAP or count > 23:
        raise WireError(Reason.BAD_CBOR, "what is signed is not a small map")
    parts = [bytes(((cbor.MAP << 5) | (count - 1),)) if count else b""]
    found = False
    for _ in range(count):
        start = offset
        after_key = cbor.skip(block, offset)
        offset = cbor.skip(block, after_key)
        if block[start:after_key] == b"csig":
            found = True
        else:
            parts.append(block[start:offset])
    if not found or offset != len(block):
        raise WireError(Reason.BAD_CBOR, "what is signed has no signature, or something behind it")
    return b"".join(parts)


def is_valid(key: PublicKey, message: bytes, sig: bytes) -> bool:
    """Whether `sig` is this key's signature of the message. Raises WireError(BAD_KEY) for a key
    that is not on its curve.
    """
    if len(sig) != SIZE:
        return False
    r, s = int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:], "big")
    order = _ORDERS[key.curve]
    if not (0 < r < order and 0 < s <= order // 2):
        return False
    digest = hashlib.sha256(message).digest()
    der = encode_dss_signature(r, s)
    if key.curve is Curve.K256:
        return _k256(key.point).verify(der, digest, hasher=None)
    try:
        _p256(key.point).verify(der, digest, _PREHASHED)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=65_536)
def _k256(point: bytes) -> coincurve.PublicKey:
    try:
        return coincurve.PublicKey(point)
    except ValueError:
        raise WireError(Reason.BAD_KEY, "a point that is not on the curve k256") from None


@lru_cache(maxsize=65_536)
def _p256(point: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise WireError(Reason.BAD_KEY, "a point that is not on the curve p256") from None
