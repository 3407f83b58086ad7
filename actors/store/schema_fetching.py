"""The tables of what is to be fetched: see `schema`."""

from actors.store.table import Table, table

FETCHING: tuple[Table, ...] = (
    # What is missing and to be fetched (see actors/store/incomplete.py).
    table(
        "engine_incomplete",
        "kind* text, key*~ text, did!~ text, cause! text, rank! integer, state! text = 'waiting',"
        "attempts! integer = 0, next_try! timestamp = now(), reason text,"
        "created_at! timestamp = now()",
        indexes=(
            "rank, next_try WHERE state = 'waiting'",
            "next_try WHERE state = 'failed'",
            "cause, state WHERE kind = 'repo'",
        ),
    ),
    # Lists of accounts that are being read, page by page: `name` says whose, `url` and `cursor` how
    # far, `again` whether also those are fetched that were before.
    table(
        "engine_listings",
        "name*~ text, url text, cursor text, listed! bigint = 0, state! text = 'waiting',"
        "again! boolean = false, attempts! integer = 0, next_try! timestamp = now(), reason text",
    ),
)
