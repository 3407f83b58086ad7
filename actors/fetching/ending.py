"""What becomes of a row of the queue when something was tried. Pure."""

from typing import Final

from actors.atproto import uri
from actors.atproto.errors import WireError
from actors.fetching.asking import Got, ReadWhole, Whole
from actors.fetching.policy import Failure, Policy
from actors.store.incomplete import (
    DONE,
    FAILED,
    KEPT_CAUSES,
    RECORD,
    WAITING,
    Due,
    Ended,
    Standing,
)

# Before an account is asked for again whose server is not known yet.
UNKNOWN_SECONDS: Final = 5.0


def dismissed(due: Due) -> Ended | None:
    """Of something that is not fetched at all; None where it is."""
    if due.withheld:
        return done(due, "withheld")
    if due.needless:
        return gone(due)
    if due.kind == RECORD and not _is_record(due.key):
        return done(due, "bad_uri")
    return None


def gone(due: Due) -> Ended:
    """The row goes."""
    return Ended(due.kind, due.key, None)


def done(due: Due, reason: str) -> Ended:
    """The row stays, so that the same thing is not asked for again."""
    return Ended(due.kind, due.key, DONE, due.attempts, reason)


def failed(due: Due, failure: Failure, policy: Policy) -> Ended:
    """It is tried again, or given up."""
    after = policy.after(failure, due.attempts)
    state = FAILED if after.seconds is None else WAITING
    return Ended(due.kind, due.key, state, after.attempts, failure.reason, after.seconds or 0.0)


def without_server(due: Due, policy: Policy, before: float = 0.0) -> Ended:
    """It waits for the resolver, which takes `before` seconds for others; where that has found no
    server, it is a failure.
    """
    if due.looked:
        return failed(due, Failure("no_server"), policy)
    seconds = UNKNOWN_SECONDS + before + max(0.0, due.again or 0.0)
    return Ended(due.kind, due.key, WAITING, due.attempts, "server_unknown", seconds)


def overtaken(result: Whole, standing: Standing) -> bool:
    """Whether a repository was not applied, or may not have been, as its guard is another: then it
    is fetched again while its live events wait.
    """
    return standing.rev != result.repo.rev or standing.out_of_step


def written(due: Due, result: Got | Whole | ReadWhole, standing: Standing, policy: Policy) -> Ended:
    """The shard has taken it, and the index is as `standing` says."""
    if isinstance(result, Whole):
        return _applied(due)
    if isinstance(result, ReadWhole):
        if standing.rev is None or standing.rev < result.rev or standing.out_of_step:
            return failed(due, Failure("not_applied"), policy)
        return _applied(due)
    if standing.indexed:
        return gone(due)
    if standing.rev is not None and result.proven.rev < standing.rev:
        return failed(due, Failure("older_than_index"), policy)
    return done(due, "refused")


def _applied(due: Due) -> Ended:
    return done(due, "applied") if due.cause in KEPT_CAUSES else gone(due)


def _is_record(key: str) -> bool:
    try:
        return uri.parse(key).authority.startswith("did:")
    except WireError:
        return False
