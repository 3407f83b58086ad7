"""What a URL asks for, and whether we ask that. Pure.

Read by our own strict rules and handed on in parts, so that nobody after us reads it otherwise.
"""

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urljoin

from actors.outbound.errors import Kind, OutboundError

MAX_URL: Final = 8192
MAX_HOST: Final = 253
DEFAULT_PORTS: Final = {"https": 443, "http": 80, "wss": 443, "ws": 80}
_SECURE: Final = frozenset(("https", "wss"))

_URL: Final = re.compile(r"(?i)(https?|wss?)://([^/?#]*)([^#]*)(?:#.*)?", re.ASCII)
_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)
_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
# The last label of a name that some libraries would take for a number, and so for an address.
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@]*)(?::([0-9]{1,5}))?", re.ASCII)


class Origin(NamedTuple):
    """Whom to ask."""

    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """Whom to ask for what. `host` is lower case, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> Origin:
        return Origin(self.scheme, self.host, self.port)

    @property
    def secure(self) -> bool:
        return self.scheme in _SECURE

    @property
    def authority(self) -> str:
        """Host and port as a URL and the header `Host` have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse(url: str) -> Target:
    """The parts of a URL.

    Raises OutboundError(REFUSED_URL) for anything unusual: another scheme, spaces, control and
    non-ASCII characters, backslashes, a user, a host that is neither a host name nor an address in
    its plain form, or that is too long.
    """
    shown = ascii(url[:80])
    if len(url) > MAX_URL:
        raise _refused(f"a URL of {len(url)} characters")
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        raise _refused(f"{shown} has characters that no URL has")
    match = _URL.fullmatch(url)
    if match is None:
        raise _refused(f"{shown} is no URL of the web")
    scheme, authority, path = match[1].lower(), match[2].lower(), match[3]
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise _refused(f"{shown} does not name a host and nothing else")
    host = _host(parts[1])
    port = int(parts[2] or DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise _refused(f"{shown} has an impossible port")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def follow(target: Target, location: str) -> Target:
    """Where a redirect leads. Raises OutboundError(REFUSED_URL)."""
    if len(location) > MAX_URL:
        raise _refused(f"a redirect of {len(location)} characters", target.host)
    try:
        joined = urljoin(target.url, location)
    except ValueError:
        raise _refused(f"a redirect to {location[:80]!a}", target.host) from None
    return parse(joined)


def is_address(host: str) -> bool:
    """Whether a host of a target is an address and no name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def check(target: Target) -> None:
    """Refuse what is not asked outside development.

    Raises OutboundError(REFUSED_URL) for a scheme without TLS, a port that is not 80 or 443, an
    address in place of a name, and a name of one label.
    """
    if not target.secure:
        raise _refused(f"{target.scheme} has no TLS", target.host)
    if target.port not in (80, 443):
        raise _refused(f"port {target.port} is none of the web's", target.host)
    if is_address(target.host) or "." not in target.host:
        raise _refused("it is no public host name", target.host)


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise _refused(f"{text[:80]!a} is no address") from None
    if len(text) > MAX_HOST or not _NAME.fullmatch(text):
        raise _refused(f"{text[:80]!a} is no host name")
    if _NUMBER.fullmatch(text.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise _refused(f"{text[:80]!a} is no address in its plain form") from None
    return text


def _refused(detail: str, host: str = "") -> OutboundError:
    return OutboundError(Kind.REFUSED_URL, host, detail)
