"""Why a database cannot be used: the table of reasons, each with its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from engine.child import ServiceFailed

__all__ = ["EXIT_CODES", "DatabaseRefused", "Reason"]


class Reason(StrEnum):
    """What is wrong with a database, or with the place where one should be."""

    NO_BINARIES = "no_binaries"  # no PostgreSQL that runs on this machine
    NO_ACCOUNT = "no_account"  # started by root, and no unprivileged user to run it as
    NO_ACCESS = "no_access"  # a folder cannot be entered, read or written
    NO_SPACE = "no_space"  # the disk is full
    LOCKED = "locked"  # another run uses the data folder
    NOT_OURS = "not_ours"  # the folder holds something else, or belongs to another user
    OTHER_MAJOR = "other_major"  # the data folder was made by another major version
    SOCKET_PATH = "socket_path"  # longer than the 107 bytes that the system allows
    SERVER_FAILED = "server_failed"  # PostgreSQL or initdb gave up by itself
    TOO_SLOW = "too_slow"  # not ready within the limit
    UNREACHABLE = "unreachable"  # no connection to the database of --database-url
    BAD_ADDRESS = "bad_address"  # the connection string is none
    TOO_OLD = "too_old"  # a server older than the oldest supported one
    POOLED = "pooled"  # behind a proxy that pools by transaction
    ENCODING = "encoding"  # a database that cannot hold every Unicode text
    NEWER_SCHEMA = "newer_schema"  # its tables belong to a newer program
    READ_ONLY = "read_only"  # a standby, or a database set to read only
    NO_RIGHTS = "no_rights"  # the role may not do what is needed
    NOT_MIGRATED = "not_migrated"  # its tables are missing, or of an older program
    IN_THE_WAY = "in_the_way"  # what it holds cannot be brought to this program's tables
    NO_DATABASE = "no_database"  # a data folder without one, where none is to be made


# The codes are those of sysexits.h: 69 unavailable, 70 software, 71 system, 74 input/output,
# 75 try again later, 77 permission, 78 configuration.
EXIT_CODES: Final[Mapping[Reason, int]] = MappingProxyType(
    {
        Reason.NO_BINARIES: 69,
        Reason.NO_ACCOUNT: 71,
        Reason.NO_ACCESS: 77,
        Reason.NO_SPACE: 74,
        Reason.LOCKED: 75,
        Reason.NOT_OURS: 78,
        Reason.OTHER_MAJOR: 78,
        Reason.SOCKET_PATH: 78,
        Reason.SERVER_FAILED: 70,
        Reason.TOO_SLOW: 69,
        Reason.UNREACHABLE: 69,
        Reason.BAD_ADDRESS: 78,
        Reason.TOO_OLD: 78,
        Reason.POOLED: 78,
        Reason.ENCODING: 78,
        Reason.NEWER_SCHEMA: 78,
        Reason.READ_ONLY: 78,
        Reason.NO_RIGHTS: 77,
        Reason.NOT_MIGRATED: 78,
        Reason.IN_THE_WAY: 78,
        Reason.NO_DATABASE: 78,
    }
)


class DatabaseRefused(ServiceFailed):
    """The database cannot be used, and trying again would not help. Its message is one line.

    Attributes:
        reason: the row of the table above.
        exit_code: what the program ends with.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(" ".join(message.split()), EXIT_CODES[reason])
        self.reason = reason
