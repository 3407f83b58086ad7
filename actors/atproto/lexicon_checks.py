"""The checks that lexicons are compiled to: closures from a value to what is wrong with it.

Values are as `datamodel.to_data` gives them: links are `{"$link": ...}`, byte strings are
`{"$bytes": ...}`. A map of a record that is written so itself cannot be told from them, here as in
the JSON form of the protocol, and is taken for one. Source: the atproto specification, "Lexicon".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import regex

from actors.atproto.errors import shorten
from actors.atproto.lexicon_formats import Format, is_cid


class Problem(NamedTuple):
    """What is wrong with a value, and where: `path` leads there from the record, `/` between."""

    path: str
    reason: str

    def under(self, step: str | int) -> "Problem":
        """The same problem, seen from one level above."""
        step = step if isinstance(step, int) else step[:_STEP]
        return Problem(f"{step}/{self.path}" if self.path else f"{step}", self.reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


Check = Callable[[Any], Problem | None]

_STEP: Final = 100
_UNLIMITED: Final = 1 << 62
_LINK: Final = re.compile(r"baf[ky]rei[a-z2-7]{52}").fullmatch
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*").fullmatch
_BLOB: Final = frozenset(("$type", "ref", "mimeType", "size"))
_OLD_BLOB: Final = frozenset(("cid", "mimeType"))
_clusters: Final = regex.compile(r"\X").findall


def graphemes(text: str) -> int:
    """How many characters a reader sees in `text` (extended grapheme clusters)."""
    if text.isascii():
        return len(text) - text.count("\r\n")
    return len(_clusters(text))


def _is_not(value: object, wanted: str) -> Problem:
    return Problem("", f"must be {wanted}, not {_name(value)}")


def _name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case str():
            return "a string"
        case list():
            return "an array"
        case {"$link": _}:
            return "a link"
        case {"$bytes": _}:
            return "bytes"
        case {"$type": "blob"}:
            return "a blob"
        case _:
            return "an object"


def anything(value: Any) -> Problem | None:
    """What a reference to a definition that nobody has is checked by: it must not be null."""
    return None if value is not None else _is_not(value, "there")


def nothing(value: Any) -> Problem | None:
    """The type `null`."""
    return None if value is None else _is_not(value, "null")


def nullable(check: Check) -> Check:
    """A check that null passes too."""

    def check_nullable(value: Any) -> Problem | None:
        return None if value is None else check(value)

    return check_nullable


def constant(wanted: object) -> Check:
    """The one value of `const`; also that of a token, which is its name."""

    def check_constant(value: Any) -> Problem | None:
        if type(value) is type(wanted) and value == wanted:
            return None
        return Problem("", f"must be {shorten(wanted)}, not {shorten(value)}")

    return check_constant


def one_of(allowed: Sequence[object]) -> Check:
    """The values of `enum`."""

    def check_enum(value: Any) -> Problem | None:
        if any(type(value) is type(item) and value == item for item in allowed):
            return None
        return Problem("", f"{shorten(value)} is none of the allowed values")

    return check_enum


def both(first: Check, second: Check) -> Check:
    """One check after another."""

    def check_both(value: Any) -> Problem | None:
        problem = first(value)
        return second(value) if problem is None else problem

    return check_both


def boolean(value: Any) -> Problem | None:
    """The type `boolean`."""
    return None if type(value) is bool else _is_not(value, "a boolean")


def integer(least: int | None, most: int | None) -> Check:
    """The type `integer`; a boolean is none."""
    low = -_UNLIMITED if least is None else least
    high = _UNLIMITED if most is None else most

    def check_integer(value: Any) -> Problem | None:
        if type(value) is int:
            if low <= value <= high:
                return None
            limit = f"at most {high}" if value > high else f"at least {low}"
            return Problem("", f"must be {limit}, not {value}")
        return _is_not(value, "an integer")

    return check_integer


def any_string(value: Any) -> Problem | None:
    """The type `string` without limits."""
    return None if type(value) is str else _is_not(value, "a string")


def string_of(name: str, form: Format) -> Check:
    """A string of a format, of any length."""
    common, is_valid = form.common.fullmatch, form.is_valid

    def check_format(value: Any) -> Problem | None:
        if type(value) is str:
            if common(value) is not None or is_valid(value):
                return None
            return Problem("", f"is no {name}: {shorten(value)}")
        return _is_not(value, "a string")

    return check_format


def sized_string(
    min_bytes: int | None, max_bytes: int | None, least: int | None, most: int | None
) -> Check:
    """A string with limits in bytes of UTF-8 and, `least` and `most`, in graphemes.

    A character is at most four bytes and at most one grapheme, so most strings need no measuring.
    """
    low = max(min_bytes or 0, (least or 0) if (least or 0) <= 1 else _UNLIMITED)
    high = min(
        _UNLIMITED if max_bytes is None else max_bytes // 4, _UNLIMITED if most is None else most
    )

    def check_size(value: Any) -> Problem | None:
        if type(value) is not str:
            return _is_not(value, "a string")
        if low <= len(value) <= high:
            return None
        size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        if max_bytes is not None and size > max_bytes:
            return Problem("", f"has {size} bytes, {max_bytes} are allowed")
        if min_bytes is not None and size < min_bytes:
            return Problem("", f"has {size} bytes, {min_bytes} is the least")
        if most is not None and len(value) > most:
            count = graphemes(value)
            if count > most:
                return Problem("", f"has {count} graphemes, {most} are allowed")
        if least is not None:
            count = graphemes(value)
            if count < least:
                return Problem("", f"has {count} graphemes, {least} is the least")
        return None

    return check_size


def is_link(value: Any) -> bool:
    """Whether `value` is a link."""
    if type(value) is not dict or len(value) != 1:
        return False
    text = value.get("$link")
    return type(text) is str and _LINK(text) is not None


def link(value: Any) -> Problem | None:
    """The type `cid-link`."""
    return None if is_link(value) else _is_not(value, "a link")


def byte_string(least: int | None, most: int | None) -> Check:
    """The type `bytes`, with limits in bytes."""
    low = 0 if least is None else least
    high = _UNLIMITED if most is None else most

    def check_bytes(value: Any) -> Problem | None:
        text = value.get("$bytes") if type(value) is dict and len(value) == 1 else None
        if type(text) is not str or len(text) % 4 == 1 or _BASE64(text) is None:
            return _is_not(value, "bytes")
        size = len(text) * 3 // 4
        if low <= size <= high:
            return None
        return Problem("", f"has {size} bytes, {low if size < low else high} is the limit")

    return check_bytes


def blob(value: Any) -> Problem | None:
    """The type `blob`, in the form of today and in the old one (`cid` and `mimeType`).

    Which types and sizes of files a lexicon accepts is for the server that takes the upload: the
    network's own index does not look at it either. It takes a size of -1, which old files were
    given, and no other fields than these.
    """
    if type(value) is not dict:
        return _is_not(value, "a blob")
    keys = value.keys()
    if keys == _BLOB:
        size = value["size"]
        if value["$type"] != "blob":
            return Problem("$type", "must be 'blob'")
        if not is_link(value["ref"]):
            return Problem("ref", "must be a link")
        if type(size) is not int or size < -1:
            return Problem("size", "must be the size of the file in bytes")
    elif keys == _OLD_BLOB:
        text = value["cid"]
        if type(text) is not str or not is_cid(text):
            return Problem("cid", "must be a CID")
    else:
        return Problem("", "must be a blob: $type, ref, mimeType and size")
    mime = value["mimeType"]
    if type(mime) is str and mime:
        return None
    return Problem("mimeType", "must be the type of the file")


def unknown(value: Any) -> Problem | None:
    """The type `unknown`: any object that is no link, no bytes and no blob."""
    if type(value) is not dict or (len(value) == 1 and _is_compound(value)):
        return _is_not(value, "an object")
    return _is_not(value, "an object") if value.get("$type") == "blob" else None


def _is_compound(value: dict[str, Any]) -> bool:
    """Whether a map of one key is no object but a link, or bytes."""
    return "$link" in value or "$bytes" in value


def array(item: Check, least: int | None, most: int | None) -> Check:
    """The type `array`."""
    low = 0 if least is None else least
    high = _UNLIMITED if most is None else most

    def check_array(value: Any) -> Problem | None:
        if type(value) is not list:
            return _is_not(value, "an array")
        if not low <= len(value) <= high:
            limit = f"{high} are allowed" if len(value) > high else f"{low} is the least"
            return Problem("", f"has {len(value)} items, {limit}")
        for index, element in enumerate(value):
            problem = item(element)
            if problem is not None:
                return problem.under(index)
        return None

    return check_array


def structure(properties: Mapping[str, Check], required: Sequence[str]) -> Check:
    """The type `object`; what is not among its properties may be anything."""
    wanted = tuple(required)
    find = dict(properties).get

    def check_object(value: Any) -> Problem | None:
        if type(value) is not dict or (len(value) == 1 and _is_compound(value)):
            return _is_not(value, "an object")
        for key in wanted:
            if key not in value:
                return Problem(key, "is missing")
        for key, item in value.items():
            check = find(key)
            if check is not None:
                problem = check(item)
                if problem is not None:
                    return problem.under(key)
        return None

    return check_object


def union(variants: Mapping[str, Check], *, closed: bool) -> Check:
    """The type `union`, its variants by `$type`; one that is open takes any other `$type` too."""
    find = dict(variants).get

    def check_union(value: Any) -> Problem | None:
        if type(value) is not dict:
            return _is_not(value, "an object with a $type")
        kind = value.get("$type")
        if type(kind) is not str or not kind:
            return Problem("$type", "is missing" if kind is None else "must be a string")
        check = find(kind)
        if check is not None:
            return check(value)
        return Problem("$type", f"{shorten(kind)} is none of the union") if closed else None

    return check_union
