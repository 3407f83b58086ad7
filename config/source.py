"""What ``--source`` names, and where reading it starts."""

from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from config.units import parse_duration

SUBSCRIBE_REPOS: Final = "/xrpc/com.atproto.sync.subscribeRepos"
DEMO: Final = "demo"
DEMO_CAPTURE: Final = Path(__file__).parent.parent / "bench" / "demo.frames.gz"


class Source(msgspec.Struct, frozen=True):
    """A relay or a capture file.

    ``address`` is the whole websocket URL of a relay or the absolute path of a capture; ``host`` is
    the name its checkpoint is kept under, since sequence numbers mean nothing on another host.
    """

    kind: Literal["relay", "capture"]
    address: str
    host: str


class Start(msgspec.Struct, frozen=True):
    """Where the first run starts: at ``cursor``, or ``seconds`` back from now."""

    kind: Literal["live", "oldest", "cursor", "since"]
    cursor: int = 0
    seconds: float = 0.0


def parse_source(text: str) -> Source:
    """What the text names. Does not look whether a relay is there; a capture must be a file.

    Raises ValueError with a sentence for the operator.
    """
    if text == DEMO:
        return _capture(DEMO_CAPTURE)
    if "://" not in text:
        if not text.strip():
            raise ValueError("no source is given; name a relay (wss://host) or a capture file")
        return _capture(Path(text).expanduser())
    parts = urlsplit(text)
    if parts.scheme not in {"ws", "wss"}:
        # Relays of the network speak TLS only; one on this machine mostly does not.
        wanted = "ws" if parts.scheme == "http" and _is_loopback(parts.hostname) else "wss"
        host = parts.netloc or "host"
        raise ValueError(f"{text!r} is no websocket address; write {wanted}://{host}")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    if not parts.hostname:
        raise ValueError(f"{text!r} names no host")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r}: leave out what follows the path; use --cursor for the start")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path if parts.path not in {"", "/"} else SUBSCRIBE_REPOS
    address = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    standard = {"ws": 80, "wss": 443}[parts.scheme]
    return Source("relay", address, host if port in {None, standard} else f"{host}:{port}")


def asked_at(source: Source) -> str:
    """The URL at which a relay answers questions: its host, by HTTP. Empty for a capture."""
    if source.kind != "relay":
        return ""
    scheme = "https" if source.address.startswith("wss:") else "http"
    return f"{scheme}://{source.host}"


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return host is not None
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # a name, of some other machine


def _capture(path: Path) -> Source:
    path = path.resolve()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a capture file, or a relay as wss://host")
    if not path.is_file():
        raise ValueError(f"there is no capture file {path}; a relay is written wss://host")
    return Source("capture", str(path), f"capture:{path}")


def parse_start(start: str | int, source: Source) -> Start:
    """Where to start: ``auto``, ``live``, ``oldest``, a cursor, or a duration back from now.

    Raises ValueError with a sentence for the operator.
    """
    text = str(start).strip()
    if text == "auto":
        return Start("oldest" if source.kind == "capture" else "live")
    if text == "live":
        if source.kind == "capture":
            raise ValueError("a capture has no live end; start it at oldest or at a cursor")
        return Start("live")
    if text == "oldest":
        return Start("oldest")
    if text.isascii() and text.isdigit():
        if int(text) >= 2**53:
            raise ValueError(f"the cursor {text} is beyond the protocol's 2^53 - 1")
        return Start("cursor", cursor=int(text))
    try:
        return Start("since", seconds=parse_duration(text))
    except ValueError:
        raise ValueError(
            f"{text!r} is no start; write auto, live, oldest, a cursor, or a duration like 2h"
        ) from None
