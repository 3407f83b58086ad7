"""The record types of the index: one file each, and RECORDS, the table of all."""

from actors.records.block import BLOCK
from actors.records.bookmark import BOOKMARK
from actors.records.follow import FOLLOW
from actors.records.generator import GENERATOR
from actors.records.generic import (
    CHAT_DECLARATION,
    NOTIFICATION_DECLARATION,
    STATUS,
    UNKNOWN,
)
from actors.records.label import LABEL
from actors.records.labeler import LABELER
from actors.records.like import LIKE
from actors.records.list import LIST
from actors.records.listblock import LIST_BLOCK
from actors.records.listitem import LIST_ITEM
from actors.records.post import POST
from actors.records.postgate import POST_GATE
from actors.records.profile import PROFILE
from actors.records.record import RecordType
from actors.records.repost import REPOST
from actors.records.starterpack import STARTER_PACK
from actors.records.threadgate import THREAD_GATE
from actors.records.verification import VERIFICATION

__all__ = ["RECORDS", "UNKNOWN", "RecordType", "record_type"]

RECORDS: dict[str, RecordType] = {
    record.collection: record
    for record in (
        POST,
        LIKE,
        REPOST,
        BOOKMARK,
        FOLLOW,
        BLOCK,
        LIST_BLOCK,
        LIST,
        LIST_ITEM,
        STARTER_PACK,
        PROFILE,
        STATUS,
        NOTIFICATION_DECLARATION,
        CHAT_DECLARATION,
        GENERATOR,
        LABELER,
        THREAD_GATE,
        POST_GATE,
        VERIFICATION,
        LABEL,
    )
}


def record_type(collection: str) -> RecordType:
    """Return the record type of a collection; unknown ones are stored whole."""
    return RECORDS.get(collection, UNKNOWN)
