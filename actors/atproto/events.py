"""The events of a firehose, decoded and checked. Times are naive UTC; CIDs are their 36 bytes."""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """What a frame is. OTHER is an event that this version does not know: to be ignored."""

    COMMIT = "commit"
    SYNC = "sync"
    IDENTITY = "identity"
    ACCOUNT = "account"
    INFO = "info"
    ERROR = "error"
    OTHER = "other"


class Action(StrEnum):
    """What an operation does to a record."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


ACTIONS: Final[dict[object, Action]] = {action.value: action for action in Action}


class Op(msgspec.Struct, frozen=True, gc=False):
    """One operation of a commit, as the frame names it."""

    action: Action
    collection: str
    rkey: str
    cid: bytes | None
    prev: bytes | None

    @property
    def path(self) -> str:
        """The key in the repository: `collection/rkey`."""
        return f"{self.collection}/{self.rkey}"


class Commit(msgspec.Struct, frozen=True, gc=False, tag="commit"):
    """`#commit`: a change of one repository. `commit.py` opens its `blocks`."""

    seq: int
    did: str
    rev: str
    since: str | None
    prev_data: bytes | None
    commit: bytes
    blocks: bytes
    ops: tuple[Op, ...]
    time: datetime
    too_big: bool


class Sync(msgspec.Struct, frozen=True, gc=False, tag="sync"):
    """`#sync`: the state of a repository. `blocks` holds the commit block alone."""

    seq: int
    did: str
    rev: str
    blocks: bytes
    time: datetime


class Identity(msgspec.Struct, frozen=True, gc=False, tag="identity"):
    """`#identity`: the DID document or handle may have changed. `handle` is only a hint."""

    seq: int
    did: str
    time: datetime
    handle: str | None


class Account(msgspec.Struct, frozen=True, gc=False, tag="account"):
    """`#account`: whether the host serves the account, and why not. Unknown statuses are legal."""

    seq: int
    did: str
    time: datetime
    active: bool
    status: str | None


class Info(msgspec.Struct, frozen=True, gc=False, tag="info"):
    """`#info`, such as `OutdatedCursor`."""

    name: str
    message: str | None


class ErrorFrame(msgspec.Struct, frozen=True, gc=False, tag="error"):
    """An error of the stream; the peer closes after it."""

    error: str
    message: str | None


Event = Commit | Sync | Identity | Account | Info | ErrorFrame
