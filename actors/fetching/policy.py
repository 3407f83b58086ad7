"""What a try that came to nothing means: whether it counts, and when the next one is. Pure."""

import random
from typing import Final, NamedTuple

import msgspec

from actors.atproto.errors import Reason, WireError
from actors.outbound import Kind, OutboundError
from engine.restarts import Backoff

NOT_THERE_TRIES: Final = 3
"""How often something is asked for that is not there, as its server says without proof."""
REFRESHED_AT: Final = frozenset((1, 4))
"""After these failures in a row the account's identity is looked at again, where it may be why."""

ABSENT: Final = frozenset(("RecordNotFound", "RepoNotFound", "AccountNotFound"))
_TOO_MANY_REQUESTS: Final = 429
# Names that servers give to errors. Others are not repeated: anybody could fill our metrics.
_NAMES: Final = frozenset(
    (
        *("RecordNotFound", "RepoNotFound", "AccountNotFound", "RepoTakendown", "RepoSuspended"),
        *("RepoDeactivated", "InvalidRequest", "MethodNotImplemented", "AuthRequired"),
        *("HeadNotFound", "AccountTakedown", "AccountDeactivated", "RepoDesynchronized"),
    )
)
# Nothing was asked, or the host only said when to ask: no attempt.
_POSTPONED: Final = frozenset((Kind.PAUSED, Kind.BREAKER_OPEN, Kind.NEIGHBOURS, Kind.BUSY))
# The account may have moved to another server, or changed its key.
_MAY_HAVE_MOVED: Final = frozenset(
    (
        *("RepoNotFound", "RepoDeactivated", "RepoTakendown", "AccountNotFound", "RecordNotFound"),
        *(str(Reason.BAD_SIGNATURE), str(Reason.BAD_KEY)),
        *(str(Kind.NO_SUCH_NAME), str(Kind.REFUSED_URL), str(Kind.REFUSED_ADDRESS)),
    )
)


class Failure(NamedTuple):
    """Why a try came to nothing; `reason` is fit for a metric's label.

    `counts`: it was an attempt. `seconds` for which trying again is no use.
    """

    reason: str
    counts: bool = True
    seconds: float = 0.0

    @property
    def may_have_moved(self) -> bool:
        """Whether the identity of the account may be out of date."""
        return self.reason in _MAY_HAVE_MOVED


class Next(NamedTuple):
    """The attempts so far, and in how many seconds the next one is; None: there is none."""

    attempts: int
    seconds: float | None


class Refused(Exception):
    """A server answered with a status that is no success."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


def failure_of(error: OutboundError | WireError | Refused | OSError) -> Failure:
    """What an error means."""
    match error:
        case OutboundError():
            postponed = error.kind in _POSTPONED or error.status == _TOO_MANY_REQUESTS
            return Failure(
                "asked_to_wait" if error.status == _TOO_MANY_REQUESTS else str(error.kind),
                not postponed,
                error.retry_after,
            )
        case WireError():
            return Failure(str(error.reason))
        case Refused():
            return Failure(_named(error))
        case _:
            # Our own disk is full, or broken: nobody else is to blame.
            return Failure("disk", counts=False, seconds=60.0)


def _named(refused: Refused) -> str:
    """The name that the protocol gives to an error, or its status."""
    try:
        body = msgspec.json.decode(refused.body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        body = None
    name = body.get("error") if isinstance(body, dict) else None
    if isinstance(name, str) and name in _NAMES:
        return name
    return f"http_{refused.status}"


class Policy:
    """How often and how soon things are tried again."""

    def __init__(self, attempts: int, backoff: Backoff, chance: random.Random) -> None:
        self._most = attempts
        self._backoff = backoff
        self._chance = chance

    def after(self, failure: Failure, attempts: int) -> Next:
        """What follows a failure, where there were `attempts` before."""
        if not failure.counts:
            # Those that wait for one host do not come back together.
            spread = 1.0 + 0.2 * self._chance.random()
            return Next(attempts, max(failure.seconds, 1.0) * spread)
        attempts += 1
        most = min(self._most, NOT_THERE_TRIES) if failure.reason in ABSENT else self._most
        if attempts >= most:
            return Next(attempts, None)
        return Next(attempts, max(self._backoff.delay(attempts, self._chance), failure.seconds))
