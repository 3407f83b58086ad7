"""The one error of the wire format, and the table of its reasons."""

from enum import StrEnum


class Reason(StrEnum):
    """Why something from the network was refused. The values appear in metrics and logs."""

    # frames
    FRAME_TOO_LARGE = "frame_too_large"
    BAD_FRAME = "bad_frame"  # not two DAG-CBOR items, header first
    TOO_MANY_ITEMS = "too_many_items"  # small bytes that would become a great many objects
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_SEQ = "bad_seq"
    BAD_DID = "bad_did"
    BAD_TIME = "bad_time"
    BAD_REV = "bad_rev"
    REV_IN_FUTURE = "rev_in_future"
    BAD_OP = "bad_op"
    BAD_PATH = "bad_path"
    TOO_MANY_OPS = "too_many_ops"
    BLOCKS_TOO_LARGE = "blocks_too_large"
    TOO_BIG = "too_big"  # the deprecated flag of a commit that came without its blocks

    # identifiers
    BAD_CID = "bad_cid"
    BAD_TID = "bad_tid"
    BAD_URI = "bad_uri"

    # lists of accounts
    BAD_LIST = "bad_list"

    # CAR
    BAD_CAR = "bad_car"
    HASH_MISMATCH = "hash_mismatch"

    # commits
    COMMIT_MISSING = "commit_missing"
    BAD_COMMIT = "bad_commit"
    COMMIT_MISMATCH = "commit_mismatch"
    OPS_DO_NOT_CHAIN = "ops_do_not_chain"

    # records and the data model
    RECORD_MISSING = "record_missing"
    RECORD_TOO_LARGE = "record_too_large"
    RECORDS_TOO_LARGE = "records_too_large"  # one block, named often enough to be too much in all
    BAD_CBOR = "bad_cbor"
    INVALID_UTF8 = "invalid_utf8"
    NOT_A_MAP = "not_a_map"
    MISSING_TYPE = "missing_type"
    FLOAT = "float"
    INTEGER_TOO_LARGE = "integer_too_large"
    TOO_DEEP = "too_deep"
    KEY_TOO_LONG = "key_too_long"

    # trees
    BAD_MST = "bad_mst"
    MST_BLOCK_MISSING = "mst_block_missing"
    TREE_MISMATCH = "tree_mismatch"  # the operations do not lead from `prevData` to `data`

    # keys and signatures
    BAD_KEY = "bad_key"
    BAD_SIGNATURE = "bad_signature"


class WireError(ValueError):
    """Bytes or text from the network that break a rule of the protocol.

    `reason` comes from the table above and is fit for a metric's label; `detail` says in words what
    was wrong with what, and may quote (shortened) what the peer sent.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["WireError"], tuple[Reason, str]]:
        return WireError, (self.reason, self.detail)


def shorten(value: object, limit: int = 80) -> str:
    """`repr` of a peer's value, cut so that a hostile one cannot fill a log."""
    if isinstance(value, (str, bytes)) and len(value) > limit:
        return f"{value[:limit]!r}... ({len(value)} long)"
    text = (
        repr(value) if isinstance(value, (str, bytes, int, bool, type(None))) else str(type(value))
    )
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."
