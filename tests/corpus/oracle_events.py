"""What the recorded events say of each record and account: what reasons are checked against.

Read with the reference decoder, so that nothing here can be wrong in the engine's way.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import libipld

from tests.corpus import files
from tests.reference_decode import cid_text, split_car


class Version(NamedTuple):
    """One operation on a record: the position of its event in the stream, the event's time, the
    CID, and the record, whose links are bytes; no record where it is deleted, or not in the commit.
    """

    position: int
    time: str
    action: str
    cid: str
    record: dict[str, Any]


@dataclass
class Events:
    """The history of each record by its uri, and of the accounts."""

    versions: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    deleted_accounts: set[str] = field(default_factory=set)
    # Accounts whose last commit changed nothing.
    ended_empty: set[str] = field(default_factory=set)

    def frame(self, position: int, frame: bytes) -> None:
        """Take in one message."""
        header, body = libipld.decode_dag_cbor_multi(frame)
        if header["t"] == "#account" and body.get("status") == "deleted":
            self.deleted_accounts.add(body["did"])
        if header["t"] != "#commit":
            return
        author = body["repo"]
        self.ended_empty.discard(author)
        if not body["ops"]:
            self.ended_empty.add(author)
            return
        blocks = split_car(body["blocks"])
        for op in body["ops"]:
            block = blocks.get(op["cid"]) if op["cid"] else None
            record = {} if block is None else libipld.decode_dag_cbor(block)
            cid = cid_text(op["cid"]) if op["cid"] else ""
            version = Version(position, body["time"], op["action"], cid, record)
            self.versions[f"at://{author}/{op['path']}"].append(version)

    def last(self, uri: str) -> Version:
        """The last operation on a record; KeyError where no event ever named it."""
        return self.known(uri)[-1]

    def known(self, uri: str) -> Sequence[Version]:
        """All operations on a record, which some event must have named."""
        if uri not in self.versions:
            raise KeyError(f"no event names {uri}")
        return self.versions[uri]

    def record(self, uri: str) -> dict[str, Any]:
        """The record as it stands in its repository, empty where it does not."""
        return self.versions[uri][-1].record if uri in self.versions else {}

    def stands(self, uri: str) -> bool:
        """Whether its repository holds a record at the end."""
        return uri in self.versions and self.versions[uri][-1].action != "delete"

    def was_deleted(self, uri: str) -> bool:
        """Whether a record was there once and its author deleted it for good."""
        return uri in self.versions and not self.stands(uri)

    def was_updated(self, uri: str) -> bool:
        """Whether a record was changed under its key."""
        return any(version.action == "update" for version in self.versions.get(uri, ()))

    def begin(self, uri: str) -> int:
        """Position of the first operation on a record."""
        return self.known(uri)[0].position


@cache
def events() -> Events:
    """What the whole capture says."""
    result = Events()
    for position, frame in enumerate(files.demo_frames()):
        result.frame(position, frame)
    return result


def author(uri: str) -> str:
    """The authority of an at-uri."""
    return uri.split("/")[2]


def collection(uri: str) -> str:
    """The collection in an at-uri."""
    return uri.split("/")[3]


def rkey(uri: str) -> str:
    """The record key in an at-uri."""
    return uri.split("/")[4]
