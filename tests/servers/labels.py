"""Labels that tests make and sign."""

import hashlib
from typing import Any

import libipld
from coincurve import PrivateKey

from actors.atproto import cbor, frames

_K256_PUBLIC = b"\xe7\x01"


class LabelKey:
    """The key of a labeler; the same name makes the same key."""

    def __init__(self, name: str = "labeler") -> None:
        self._key = PrivateKey(hashlib.sha256(name.encode()).digest())

    @property
    def multikey(self) -> str:
        """The public key as a DID document has it in a Multikey."""
        public = self._key.public_key.format(compressed=True)
        text: str = libipld.encode_multibase("z", _K256_PUBLIC + public)
        return text

    def sign(self, label: dict[str, Any]) -> dict[str, Any]:
        """The label with its signature over all its other fields."""
        digest = hashlib.sha256(cbor.encode(label)).digest()
        return {**label, "sig": self._key.sign_recoverable(digest, hasher=None)[:64]}

    def make(
        self, src: str, uri: str, val: str, *, cts: str = "2026-01-01T00:00:00.000Z", **fields: Any
    ) -> dict[str, Any]:
        """A signed label; `cid`, `neg` and `exp` may be given."""
        return self.sign({"ver": 1, "src": src, "uri": uri, "val": val, "cts": cts, **fields})


def labeler_document(did: str, endpoint: str, key: LabelKey) -> dict[str, Any]:
    """The DID document of a labeler."""
    return {
        "id": did,
        "alsoKnownAs": [],
        "verificationMethod": [
            {
                "id": f"{did}#atproto_label",
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": key.multikey,
            }
        ],
        "service": [
            {
                "id": "#atproto_labeler",
                "type": "AtprotoLabeler",
                "serviceEndpoint": endpoint,
            }
        ],
    }


def labels_frame(seq: int, *labels: dict[str, Any]) -> bytes:
    """The frame of some labels."""
    return frames.encode("#labels", {"seq": seq, "labels": list(labels)})


def error_frame(error: str, message: str = "") -> bytes:
    """The frame of an error, after which a server closes."""
    return cbor.encode({"op": -1}) + cbor.encode({"error": error, "message": message})
