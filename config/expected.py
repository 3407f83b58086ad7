"""What a setting may be, in people's words, from its type."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from msgspec import Meta

from config.settings import HttpUrl, HttpUrlOrNone, PostgresSize

# What the patterns of the settings ask for.
_FORMS: Final[Mapping[Any, str]] = {
    PostgresSize: "a size as PostgreSQL writes it, like 64kB, 256MB or 4GB",
    HttpUrl: "an address like https://host",
    HttpUrlOrNone: "an address like https://host, or nothing",
    str: "text",
    bool: "true or false",
    str | int: "auto, live, oldest, a cursor, or a duration like 2h",
}
# By the end of its name: what a number counts, and how else it may be written.
_UNITS: Final[Mapping[str, str]] = {
    "_seconds": "a number of seconds, or a duration like 90s or 2h,",
    "_ms": "a number of milliseconds",
    "_bytes": "a number of bytes, or a size like 64kB or 32MiB,",
}


def expected(key: str, hint: Any) -> str:
    """What the setting `key` of the type `hint` may be: "a whole number from 0 to 256"."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if hint in _FORMS:
        return _FORMS[hint]
    assert get_origin(hint) is Annotated, f"{key} is of no type that can be put into words"
    type_, meta = get_args(hint)
    assert isinstance(meta, Meta)
    number = "a whole number" if type_ is int else "a number"
    words = next((unit for end, unit in _UNITS.items() if key.endswith(end)), number)
    low = f"above {meta.gt}, up to" if meta.gt is not None else f"from {meta.ge} to"
    zero = f" ({meta.description})" if meta.description else ""
    return f"{words} {low} {meta.le}{zero}"
