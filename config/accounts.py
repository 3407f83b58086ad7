"""Settings that name accounts."""

import re
from typing import Final

# A rough look: whoever asks for the document of one finds out the rest.
DID: Final = re.compile(r"did:(?:plc:[a-z2-7]{24}|web:[a-zA-Z0-9.%-]{1,253})")


def listed(text: str) -> tuple[str, ...]:
    """What stands between commas, each once."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def parse_accounts(text: str) -> tuple[str, ...]:
    """The DIDs of accounts, each once.

    Raises ValueError for anything else, handles too: whom one leads to may change at any time.
    """
    found = listed(text)
    for each in found:
        if DID.fullmatch(each):
            continue
        name = each.removeprefix("@")
        if each.startswith("did:") or "." not in name:
            raise ValueError(f"{each!r} is no did:plc or did:web")
        raise ValueError(
            f"{each!r} is no DID; that of a handle is at https://{name}/.well-known/atproto-did,"
            f" or in the DNS: dig +short TXT _atproto.{name}"
        )
    return found
