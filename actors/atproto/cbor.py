"""Decoding DAG-CBOR that may be hostile.

libipld decodes at hundreds of megabytes a second, so it does the work; this file adds what it
lacks. One byte of CBOR can become an object of 56 bytes or more, so a frame of 5 MB could fill
hundreds of megabytes: input above `SCAN_ABOVE` is first walked without making objects, against a
limit on items.
"""

from typing import Any, Final

import libipld

from actors.atproto.errors import Reason, WireError

SCAN_ABOVE: Final = 65_536
"""Bytes up to which an input's objects are bounded by its size alone (about 5 MB)."""

MAX_ITEMS: Final = 50_000
"""Items (map keys count too) that one input above `SCAN_ABOVE` may hold. A record of 1 MB of real
text holds a few thousand, and a commit of 200 operations about 2,000."""

# Major types (RFC 8949 section 3.1).
UINT, NINT, BYTES, TEXT, ARRAY, MAP, TAG = range(7)


def head(data: bytes, offset: int) -> tuple[int, int, int]:
    """The major type and argument of the item at `offset`, and the offset after its head.

    Raises WireError(BAD_CBOR) at the end of the data and for indefinite lengths (RFC 8949 section
    3; DAG-CBOR allows none).
    """
    try:
        first = data[offset]
    except IndexError:
        raise WireError(Reason.BAD_CBOR, "the data ends where an item should begin") from None
    major, low = first >> 5, first & 31
    offset += 1
    if low < 24:
        return major, low, offset
    if low > 27:
        raise WireError(Reason.BAD_CBOR, f"indefinite or reserved length at byte {offset - 1}")
    after = offset + (1 << (low - 24))
    if after > len(data):
        raise WireError(Reason.BAD_CBOR, "the data ends within the head of an item")
    return major, int.from_bytes(data[offset:after], "big"), after


def skip(data: bytes, offset: int, max_items: int = MAX_ITEMS) -> int:
    """The offset after the item at `offset`, without making any object of it. Errors as `walk`."""
    return walk(data, offset, max_items)[0]


def walk(data: bytes, offset: int, max_items: int = MAX_ITEMS) -> tuple[int, int]:
    """The offset after the item at `offset`, and of how many items it consists.

    Not recursive, so depth costs nothing. Raises WireError: BAD_CBOR for broken framing,
    TOO_MANY_ITEMS past `max_items`.
    """
    size = len(data)
    left = 1  # items still to be walked
    seen = 0
    while left:
        major, argument, offset = head(data, offset)
        left -= 1
        seen += 1
        if major in (BYTES, TEXT):
            offset += argument
        elif major == ARRAY:
            left += argument
        elif major == MAP:
            left += 2 * argument
        elif major == TAG:
            left += 1
        if offset > size or left > size - offset:
            raise WireError(Reason.BAD_CBOR, "a length reaches past the end of the data")
        if seen + left > max_items:
            raise WireError(Reason.TOO_MANY_ITEMS, f"more than {max_items} items")
    return offset, seen


def links(data: bytes) -> set[bytes]:
    """What the links (tag 42) in `data` name, each without the zero byte that leads it.

    libipld makes the same bytes of a link and of a byte string. `data` is what it has decoded, so
    its framing is right: the items lie one after another, and one pass tells them apart whatever
    their number. A search for each of them would take hours in a record made for that.
    """
    found: set[bytes] = set()
    offset, size = 0, len(data)
    while offset < size:
        first = data[offset]
        major, argument = first >> 5, first & 31
        if argument < 24:
            offset += 1
        else:
            _, argument, offset = head(data, offset)
        if major in (TEXT, BYTES):
            offset += argument
        elif major == TAG:
            _, argument, start = head(data, offset)
            offset = start + argument
            found.add(data[start + 1 : offset])
    return found


def decode(data: bytes) -> Any:
    """One DAG-CBOR item that fills `data`. Links come as plain bytes.

    Raises WireError: BAD_CBOR, INVALID_UTF8, TOO_DEEP, TOO_MANY_ITEMS.
    """
    if len(data) > SCAN_ABOVE:
        skip(data, 0)
    try:
        return libipld.decode_dag_cbor(data)
    except (ValueError, RecursionError) as error:
        raise refusal(error) from None


def decode_pair(data: bytes) -> tuple[Any, Any]:
    """The two DAG-CBOR items that fill `data`, as in a frame. Errors as `decode`."""
    if len(data) > SCAN_ABOVE and skip(data, skip(data, 0)) != len(data):
        raise WireError(Reason.BAD_CBOR, "bytes after the second item")
    try:
        items = libipld.decode_dag_cbor_multi(data)
    except (ValueError, RecursionError) as error:
        raise refusal(error) from None
    if len(items) != 2:
        raise WireError(Reason.BAD_CBOR, f"{len(items)} items where a header and a body should be")
    return items[0], items[1]


def refusal(error: ValueError | RecursionError) -> WireError:
    """The typed form of what libipld raised."""
    if isinstance(error, RecursionError):
        return WireError(Reason.TOO_DEEP, "nested deeper than the decoder goes")
    text = str(error).removeprefix("Failed to decode DAG-CBOR. ")
    if "Unicode" in text:
        return WireError(Reason.INVALID_UTF8, "a text string is not valid UTF-8")
    return WireError(Reason.BAD_CBOR, text[:200])


def encode(value: Any) -> bytes:
    """DAG-CBOR of our own values: map keys sorted, the bytes of a CID become a link.

    Raises ValueError for what DAG-CBOR cannot hold; it is not meant for values from the network.
    """
    return libipld.encode_dag_cbor(value)
