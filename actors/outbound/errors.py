"""Why a request was not made, or came to nothing."""

from enum import StrEnum


class Kind(StrEnum):
    """What went wrong with a request; also the outcome under which it is counted."""

    REFUSED_URL = "refused_url"  # we do not ask what has such an address: scheme, port, name
    REFUSED_ADDRESS = "refused_address"  # the name leads only to addresses that are not public
    NO_SUCH_NAME = "no_such_name"  # the name system says that there is none
    DNS = "dns"  # the name system gave no answer
    CONNECT = "connect"  # no connection: refused, no route, no answer
    TLS = "tls"  # no common protocol, or a certificate that does not hold
    TIMEOUT = "timeout"  # no answer in time, or the whole took too long
    TOO_SLOW = "too_slow"  # it came more slowly than the floor allows
    TOO_LARGE = "too_large"  # more bytes than the caller wants, decompressed or not
    TOO_MANY_REDIRECTS = "too_many_redirects"
    BAD_ANSWER = "bad_answer"  # not HTTP, or an encoding that was not asked for
    CLOSED = "closed"  # the connection ended before the answer did
    HTTP_STATUS = "http_status"  # 429, or 500 and above
    PAUSED = "paused"  # the host asked to be left alone, and the time is not over
    BREAKER_OPEN = "breaker_open"  # the host failed several times in a row, and is left alone
    NEIGHBOURS = "neighbours"  # others at its address did, and it is left alone with them
    BUSY = "busy"  # too many requests of ours wait for their turn

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later without a change on the other side."""
        return self not in _LASTING


_LASTING = frozenset(
    (
        Kind.REFUSED_URL,
        Kind.REFUSED_ADDRESS,
        Kind.NO_SUCH_NAME,
        Kind.TOO_LARGE,
        Kind.TOO_MANY_REDIRECTS,
        Kind.BAD_ANSWER,
    )
)


class OutboundError(Exception):
    """A request came to nothing.

    `host` is the one that was asked last. `status` is that of HTTP_STATUS, else 0. `retry_after` is
    the number of seconds for which asking again is no use, 0.0 where nothing is known.
    """

    def __init__(
        self, kind: Kind, host: str, detail: str, *, status: int = 0, retry_after: float = 0.0
    ) -> None:
        super().__init__(f"{host}: {detail}" if host else detail)
        self.kind = kind
        self.host = host
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
