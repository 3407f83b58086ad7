"""What the last events about an account said, for the reference indexer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.reference_decode import Dropped, is_did, parse_time


@dataclass(frozen=True)
class Moment:
    """When an event happened: by its host's count, and by its time."""

    host: str
    seq: int
    time: datetime

    def is_after(self, other: "Moment | None") -> bool:
        """Whether this is the later of two events of one kind about one account."""
        if other is None:
            return True
        if self.host != other.host:
            return self.time > other.time
        return self.seq > other.seq


@dataclass
class Standing:
    """Whether an account is active, and if not, why; which events said so."""

    active: bool = True
    status: str | None = None
    account: Moment | None = None
    identity: Moment | None = None

    @property
    def shown(self) -> str | None:
        """Why it is hidden; None while it is active."""
        return None if self.active else self.status or "inactive"

    def row(self, did: str) -> dict[str, Any]:
        """Its row in engine_accounts, without the names of hosts."""
        return {
            "did": did,
            "active": self.active,
            "status": self.status,
            "seq": self.account.seq if self.account else None,
            "time": self.account.time if self.account else None,
            "identity_seq": self.identity.seq if self.identity else None,
            "identity_time": self.identity.time if self.identity else None,
        }


def event_of(body: dict[str, Any], host: str) -> tuple[str, Moment]:
    """DID and moment of an #account or #identity. Raises Dropped."""
    seq, did, time = body.get("seq"), body.get("did"), parse_time(body.get("time"))
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq < 2**53:
        raise Dropped("bad_seq")
    if not isinstance(did, str) or not is_did(did):
        raise Dropped("bad_did")
    if time is None:
        raise Dropped("bad_time")
    return did, Moment(host, seq, time)


def status_of(body: dict[str, Any]) -> tuple[bool, str | None]:
    """Whether the account is active, and why not. Raises Dropped."""
    active, status = body.get("active"), body.get("status")
    if not isinstance(active, bool) or not isinstance(status, str | None):
        raise Dropped("wrong_type")
    if isinstance(status, str) and len(status) > 256:
        raise Dropped("wrong_type")
    return active, None if active else status
