"""Labels and the frames of `com.atproto.label.subscribeLabels`: bytes to checked values.

A label speaks for its source, `src`, and for nobody else; a signature of the source is part of it,
so it may be passed on. Sources: the atproto specification, "Labels", and the lexicons
`com.atproto.label.defs` and `com.atproto.label.subscribeLabels`.
"""

import base64
import hashlib
from enum import StrEnum
from typing import Any, Final, NamedTuple

from actors.atproto import cbor, datetimes, did, lexicon_formats, signature
from actors.atproto.errors import Reason, WireError, shorten
from actors.atproto.events import ErrorFrame, Info
from actors.atproto.multikey import PublicKey
from actors.atproto.peek import MAX_FRAME, MAX_SEQ

COLLECTION: Final = "com.atproto.label.label"
VERSION: Final = 1
MAX_VALUE: Final = 128
MAX_SUBJECT: Final = 2_000
"""Bytes of the uri that a label is about. The protocol allows more, but it goes into an index."""
MAX_AHEAD: Final = 5 * 60 * 1_000_000
"""Microseconds that the clock of a labeler may be ahead of ours. The newest label wins, so one from
the far future could never be taken back."""

_SIGNED: Final = ("ver", "src", "uri", "cid", "val", "neg", "cts", "exp")


class Refusal(StrEnum):
    """Why a label was not applied. The values appear in metrics and logs."""

    NOT_A_LABEL = "not_a_label"  # no map, a field that is missing or of a wrong type
    UNKNOWN_VERSION = "unknown_version"
    WRONG_SOURCE = "wrong_source"  # it speaks for somebody else than the labeler that sends it
    BAD_SUBJECT = "bad_subject"
    SUBJECT_TOO_LONG = "subject_too_long"
    BAD_CID = "bad_cid"
    BAD_VALUE = "bad_value"
    BAD_TIME = "bad_time"
    IN_FUTURE = "in_future"
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    UNREADABLE = "unreadable"  # a frame, whatever labels were in it
    UNRECEIVABLE = "unreceivable"  # a message that is too large
    TAKEN_DOWN = "taken_down"  # the operator refuses this label
    SOURCE_WITHHELD = "source_withheld"  # its source is taken down, not active, or has opted out
    DATABASE_REFUSED = "database_refused"  # PostgreSQL refuses this label, and this one alone


class LabelRefused(Exception):
    """A label breaks a rule. `detail` says which, and may quote (shortened) what was sent."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Label(NamedTuple):
    """A label of version 1. `created` and `expires` are `cts` and `exp` in microseconds since 1970.

    `signed` are the bytes that its signature is over. Nothing says that it holds: see `is_signed`.
    """

    src: str
    uri: str
    cid: str | None
    val: str
    neg: bool
    cts: str
    created: int
    exp: str | None
    expires: int | None
    sig: bytes
    signed: bytes

    @property
    def row_uri(self) -> str:
        """The uri of its row, one for each source, subject, version of the subject, and value."""
        key = cbor.encode([self.src, self.uri, self.cid, self.val])
        name = base64.b32encode(hashlib.sha256(key).digest()).decode().rstrip("=").lower()
        return f"at://{self.src}/{COLLECTION}/{name}"


class Labels(NamedTuple):
    """The event `#labels`; its labels are as they came (see `read`)."""

    seq: int
    labels: list[Any]


def decode(frame: bytes) -> Labels | Info | ErrorFrame | None:
    """The event in a frame of a labeler, or None for one that this version does not know.

    Raises WireError for what cannot be read; nothing else, whatever the bytes.
    """
    if len(frame) > MAX_FRAME:
        raise WireError(Reason.FRAME_TOO_LARGE, f"{len(frame)} bytes, {MAX_FRAME} are allowed")
    header, body = cbor.decode_pair(frame)
    if type(header) is not dict or type(body) is not dict:
        raise WireError(Reason.BAD_FRAME, "header and body must both be maps")
    op, name = header.get("op"), header.get("t")
    if type(op) is not int:
        raise WireError(Reason.BAD_FRAME, f"header with op {shorten(op)}")
    if op == -1:
        return ErrorFrame(_text(body, "error") or "Unknown", _text(body, "message"))
    if op != 1:
        return None
    if name == "#info":
        return Info(_text(body, "name") or "Unknown", _text(body, "message"))
    if name != "#labels":
        return None
    seq, labels = body.get("seq"), body.get("labels")
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        raise WireError(Reason.BAD_SEQ, f"seq is {shorten(seq)}")
    if type(labels) is not list:
        raise WireError(Reason.WRONG_TYPE, f"labels is {shorten(labels)}")
    return Labels(seq, labels)


def read(value: Any, source: str, now: int) -> Label:
    """The label in a decoded value that the labeler `source` sent, at `now` (microseconds).

    Raises LabelRefused where anything but the signature is wrong.
    """
    if type(value) is not dict:
        raise LabelRefused(Refusal.NOT_A_LABEL, f"a label is {shorten(value)}")
    version = value.get("ver")
    if type(version) is not int or version != VERSION:
        raise LabelRefused(Refusal.UNKNOWN_VERSION, f"ver is {shorten(version)}")
    src = _demand(value, "src")
    if src != source:
        raise LabelRefused(Refusal.WRONG_SOURCE, f"src is {shorten(src)}")
    subject = _subject(_demand(value, "uri"))
    cid = _optional(value, "cid")
    if cid is not None and not lexicon_formats.is_cid(cid):
        raise LabelRefused(Refusal.BAD_CID, f"cid is {shorten(cid)}")
    val = _demand(value, "val")
    if not val.isprintable() or not 0 < len(val.encode()) <= MAX_VALUE:
        raise LabelRefused(Refusal.BAD_VALUE, f"val is {shorten(val)}")
    neg = value.get("neg", False)
    if type(neg) is not bool:
        raise LabelRefused(Refusal.NOT_A_LABEL, f"neg is {shorten(neg)}")
    cts, exp = _demand(value, "cts"), _optional(value, "exp")
    created = _moment("cts", cts)
    if created > now + MAX_AHEAD:
        raise LabelRefused(Refusal.IN_FUTURE, f"cts is {shorten(cts)}")
    sig = value.get("sig")
    if sig is None:
        raise LabelRefused(Refusal.UNSIGNED, "it has no signature")
    if type(sig) is not bytes or len(sig) != signature.SIZE:
        raise LabelRefused(Refusal.BAD_SIGNATURE, f"sig is {shorten(sig)}")
    expires = None if exp is None else _moment("exp", exp)
    signed = cbor.encode({name: value[name] for name in _SIGNED if name in value})
    return Label(src, subject, cid, val, neg, cts, created, exp, expires, sig, signed)


def is_signed(label: Label, key: PublicKey) -> bool:
    """Whether the label's signature is of this key. False for a key that is none."""
    try:
        return signature.is_valid(key, label.signed, label.sig)
    except WireError:
        return False


def _subject(text: str) -> str:
    if len(text.encode()) > MAX_SUBJECT:
        raise LabelRefused(Refusal.SUBJECT_TOO_LONG, f"uri has over {MAX_SUBJECT} bytes")
    if text.startswith("did:"):
        good = did.is_valid(text)
    elif text.startswith("at://"):
        good = lexicon_formats.is_at_uri(text)
    else:
        good = text.isprintable() and lexicon_formats.is_uri(text)
    if not good:
        raise LabelRefused(Refusal.BAD_SUBJECT, f"uri is {shorten(text)}")
    return text


def _moment(field: str, text: str) -> int:
    moment = datetimes.parse(text)
    if moment is None:
        raise LabelRefused(Refusal.BAD_TIME, f"{field} is {shorten(text)}")
    return datetimes.to_microseconds(moment)


def _demand(value: dict[str, Any], field: str) -> str:
    text = _optional(value, field)
    if text is None:
        raise LabelRefused(Refusal.NOT_A_LABEL, f"{field} is missing")
    return text


def _optional(value: dict[str, Any], field: str) -> str | None:
    """A text that may be missing; null is none."""
    if field not in value:
        return None
    text = value[field]
    if type(text) is not str:
        raise LabelRefused(Refusal.NOT_A_LABEL, f"{field} is {shorten(text)}")
    return text


def _text(body: dict[str, Any], field: str) -> str | None:
    value = body.get(field)
    return value if type(value) is str else None
