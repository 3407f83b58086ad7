"""Why something was not indexed: the table of drop reasons, and the exception that carries one.

A drop is bad input that is counted and stepped over. Reasons of the wire (frames, CARs, commits,
the data model) come from `actors.atproto.errors`; those here concern records and the index.
"""

from enum import StrEnum


class DropReason(StrEnum):
    """Reasons of the index; the value is what metrics, logs and reports show."""

    TYPE_MISMATCH = "type_mismatch"  # the record's $type is not the collection of its path
    INVALID_RECORD = "invalid_record"  # a field the index needs is missing or of a wrong type
    KEY_TOO_LONG = "key_too_long"  # a string that goes into a key is over 2,000 bytes
    NOT_AUTHORIZED = "not_authorized"  # it speaks for something that is not its author's
    RECORD_MISSING = "record_missing"  # the commit names a record that its blocks do not hold
    LEXICON = "lexicon"  # it breaks the lexicon of its collection
    OPTED_OUT = "opted_out"  # its author has forbidden the collection of data
    TAKEN_DOWN = "taken_down"  # the operator refuses its author, or itself
    ACCOUNT_INACTIVE = "account_inactive"  # a commit of an account that is not active
    DATABASE_REFUSED = "database_refused"  # PostgreSQL refuses this record, and this one alone


class Drop(Exception):
    """Raised where a record cannot be indexed; `detail` names the field and what is wrong."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
