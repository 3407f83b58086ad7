"""Reads DID documents, which their owners write: any byte of one may be an attack.

Source: the atproto specification, "DID", section "DID Documents". What is not as it says is passed
over, and the rest still counts; only a document of another DID counts for nothing at all.
"""

import re
from typing import Any, Final, NamedTuple

import libipld
import msgspec

from actors.atproto import multikey
from actors.atproto.errors import WireError
from actors.atproto.multikey import Curve, PublicKey
from actors.identity import handles

MAX_BYTES: Final = 64 * 1024
"""The largest document that is read."""

_PREFIXES: Final = {Curve.K256: b"\xe7\x01", Curve.P256: b"\x80\x24"}
_ENDPOINT: Final = re.compile(
    r"(https?)://(?=[^:/]{1,253}(?:[:/]|\Z))"
    r"((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
    r"(:[0-9]{1,5})?/?",
    re.IGNORECASE,
)


class BadDocument(Exception):
    """It is no document of this DID. One line that says why."""


class Document(NamedTuple):
    """What a document says; None for what it does not, or not in a way that can be used.

    `claimed` is the handle that it names, in small letters and not verified. `pds` and `labeler`
    are origins such as `https://host`, the keys are in the form of Multikey, compressed.
    """

    claimed: str | None = None
    pds: str | None = None
    labeler: str | None = None
    signing_key: str | None = None
    label_key: str | None = None


def read(body: bytes, did: str, *, development: bool = False) -> Document:
    """What a document says of a DID, which must be its own; `development` allows http.

    Raises BadDocument.
    """
    if len(body) > MAX_BYTES:
        raise BadDocument(f"a document of {len(body)} bytes")
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise BadDocument("it is no JSON") from None
    if not isinstance(tree, dict):
        raise BadDocument("it is no JSON object")
    if tree.get("id") != did:
        raise BadDocument(f"it is the document of {str(tree.get('id'))[:80]!a}")
    services, keys = (
        _by_fragment(tree, "service", did),
        _by_fragment(tree, "verificationMethod", did),
    )
    return Document(
        claimed=_claimed(tree.get("alsoKnownAs")),
        pds=_endpoint(services.get("#atproto_pds"), "AtprotoPersonalDataServer", development),
        labeler=_endpoint(services.get("#atproto_labeler"), "AtprotoLabeler", development),
        signing_key=_key(keys.get("#atproto")),
        label_key=_key(keys.get("#atproto_label")),
    )


def key_text(key: PublicKey) -> str:
    """A key as Multikey has it: base58, with the prefix of its curve, compressed."""
    point = key.point
    if len(point) == 65:
        point = bytes((2 + (point[64] & 1),)) + point[1:33]
    return str(libipld.encode_multibase("z", _PREFIXES[key.curve] + point))


def _by_fragment(tree: dict[str, Any], name: str, did: str) -> dict[str, dict[str, Any]]:
    """The entries of a list by their id, relative or absolute; the first of an id counts."""
    found: dict[str, dict[str, Any]] = {}
    entries = tree.get(name)
    for entry in entries if isinstance(entries, list) else ():
        id_ = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(id_, str):
            fragment = id_.removeprefix(did)
            if fragment.startswith("#"):
                found.setdefault(fragment, entry)
    return found


def _claimed(names: object) -> str | None:
    """The first valid handle among the other names of an account."""
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name.startswith("at://"):
            handle = handles.normalised(name.removeprefix("at://"))
            if handle is not None:
                return handle
    return None


def _endpoint(service: dict[str, Any] | None, type_: str, development: bool) -> str | None:
    """The origin of a service; what has a path, a user or the like is none that can be used."""
    if service is None or service.get("type") != type_:
        return None
    text = service.get("serviceEndpoint")
    match = _ENDPOINT.fullmatch(text) if isinstance(text, str) and text.isascii() else None
    if match is None or (match[1].lower() == "http" and not development):
        return None
    if match[3] is not None and not 0 < int(match[3][1:]) < 65536:
        return None
    return f"{match[1]}://{match[2]}{match[3] or ''}".lower()


def _key(method: dict[str, Any] | None) -> str | None:
    if method is None:
        return None
    text, type_ = method.get("publicKeyMultibase"), method.get("type")
    if not isinstance(text, str) or not isinstance(type_, str):
        return None
    try:
        return key_text(multikey.parse(text, type_))
    except WireError:
        return None
