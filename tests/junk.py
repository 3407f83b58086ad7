"""What does not belong where it is put, for records that are spoilt."""

from typing import Any, Final

LINK: Final = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
_LONG: Final = "long" * 501


def _nested(levels: int) -> list[Any]:
    return [_nested(levels - 1)] if levels else []


JUNK: Final[tuple[Any, ...]] = (
    None,
    0,
    True,
    -1,
    2**60,
    1.5,
    "",
    "nul\0nul",
    "at://did:plc:short",
    "at://alice.test/app.bsky.feed.post/3lep6ejx2222a",
    "did:plc:",
    "2024-13-45T99:99:99Z",
    "2024-02-29T12:00:00.123456789+05:30",
    "2199-01-01T00:00:00Z",
    _LONG,
    b"bytes",
    [],
    [None, "x", {"$type": "app.bsky.feed.threadgate#listRule"}],
    {},
    {"uri": "at://did:plc:a/app.bsky.feed.post/a b", "cid": LINK},
    {"nul\0": 1, "nul": 2},
    _nested(40),
)
