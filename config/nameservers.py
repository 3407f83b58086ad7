"""The setting that names DNS servers."""

import ipaddress
from typing import Final

DNS_PORT: Final = 53


def parse_nameservers(text: str) -> tuple[tuple[str, int], ...]:
    """Address and port of each: `9.9.9.9, 127.0.0.1:5353, [::1]:53`.

    Raises ValueError for what is no address, or has an impossible port.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> tuple[str, int]:
    host, port = text, str(DNS_PORT)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(f"{text!r} is no address of a DNS server (9.9.9.9, [::1]:53)") from None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return address, int(port)
