"""How a relay serves, what it counts, and what it can be told while it runs."""

from typing import Literal

import msgspec

from bench.relay_faults import Fault


class RelayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the relay serves.

    ``held``: frames that exist at the start (None: all); the rest happens from the first
    subscription on, at ``rate`` a second (0: at once). ``replay_rate`` limits each connection
    (0: as fast as the client takes them). ``inclusive``: a cursor names the first frame sent, else
    the last not sent. ``oldest``: index of the oldest frame still held. ``outdated_info`` and
    ``future_error``: say so, as the specification asks and most relays do not.
    ``refuse_first``: handshakes answered 503; ``slow_start``: seconds before one is answered.
    ``send_buffer``: size of the socket's buffer in bytes (0: the system's choice).
    """

    held: int | None = None
    rate: float = 0.0
    replay_rate: float = 0.0
    inclusive: bool = True
    oldest: int = 0
    outdated_info: bool = False
    future_error: bool = False
    refuse_first: int = 0
    slow_start: float = 0.0
    send_buffer: int = 0
    faults: tuple[Fault, ...] = ()


class RelayCounters(msgspec.Struct):
    """What the relay did: frames and bytes of the capture handed to the sockets, faults by kind.

    ``cursors`` are those that subscriptions came with, in order (None: without).
    """

    connections: int = 0
    refused: int = 0
    open: int = 0
    frames: int = 0
    bytes: int = 0
    fired: dict[str, int] = {}
    cursors: list[int | None] = []


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line on standard input of a relay in a process of its own; the counters answer it."""

    do: Literal["counters", "publish", "refuse", "listen", "disconnect"]
    frames: tuple[bytes, ...] = ()
    seconds: float = 0.0
