"""What must hold of accounts: rows in `users`, their status, and what was taken down or deleted.

As in `verify_checks`, each rule is a query for what breaks it.
"""

from collections.abc import Iterator
from typing import Final, LiteralString

from actors.store.verify_checks import Check

# Whoever stands here has a row in users.
PEOPLE: Final = (
    ("engine_repos", "did"),
    ("posts", "author_did"),
    ("likes", "user_did"),
    ("reposts", "user_did"),
    ("follows", "follower_did"),
    ("follows", "following_did"),
    ("blocks", "blocker_did"),
    ("blocks", "blocked_did"),
    ("list_blocks", "blocker_did"),
    ("list_items", "subject_did"),
    ("lists", "creator_did"),
    ("starter_packs", "creator_did"),
    ("feed_generators", "creator_did"),
    ("labeler_services", "creator_did"),
    ("verifications", "subject_did"),
    ("generic_records", "author_did"),
    ("thread_gates", "owner_did"),
)
# Where the records of a DID stand that is deleted or refused. Not bookmarks: an AppView may keep
# those by itself.
_AUTHORS: Final = (
    ("posts", "author_did"),
    ("likes", "user_did"),
    ("reposts", "user_did"),
    ("follows", "follower_did"),
    ("blocks", "blocker_did"),
    ("list_blocks", "blocker_did"),
    ("lists", "creator_did"),
    ("starter_packs", "creator_did"),
    ("feed_generators", "creator_did"),
    ("labeler_services", "creator_did"),
    ("generic_records", "author_did"),
    ("thread_gates", "owner_did"),
)
_RECORDS: Final = (
    "posts",
    "likes",
    "reposts",
    "follows",
    "blocks",
    "list_blocks",
    "lists",
    "list_items",
    "starter_packs",
    "feed_generators",
    "labeler_services",
    "verifications",
    "generic_records",
    "engine_duplicates",
)


def _first(finds: dict[LiteralString, LiteralString]) -> LiteralString:
    """Return the expression for the first table where something is found, by its condition."""
    cases: LiteralString = " ".join(
        f"WHEN (SELECT true FROM {table} p WHERE {condition} LIMIT 1) THEN '{table}'"
        for table, condition in finds.items()
    )
    return f"CASE {cases} END"


def _written(did: LiteralString) -> LiteralString:
    finds: dict[LiteralString, LiteralString] = {
        table: f"p.{column} = {did}" for table, column in _AUTHORS
    }
    return _first(finds | {"users": f"p.did = {did} AND p.profile_record IS NOT NULL"})


# A purge that is queued is under way.
_REFUSED: Final[LiteralString] = """
    SELECT w.subject, '', w.found, 'nothing'
    FROM (SELECT d.subject, {written} AS found FROM engine_takedowns d
          WHERE {slice} AND starts_with(d.subject, {scheme})
            AND NOT EXISTS (SELECT FROM engine_purges q WHERE q.subject = d.subject)) w
    WHERE w.found IS NOT NULL
"""


def _status() -> Iterator[Check]:
    yield Check(
        "users.engine_account_status",
        "users",
        "did",
        """
        SELECT d.did, '', coalesce(d.engine_account_status, 'active'),
               coalesce(a.shown, 'active')
        FROM users d LEFT JOIN LATERAL (
            SELECT coalesce(nullif(e.status, ''), 'inactive') AS shown FROM engine_accounts e
            WHERE e.did = d.did AND NOT e.active
        ) a ON true
        WHERE {slice} AND d.engine_account_status IS DISTINCT FROM a.shown
        """,
        "users has it as {found}, but its last event says {expected}",
        mend="accounts",
    )
    yield Check(
        "users for engine_accounts.did",
        "engine_accounts",
        "did",
        """
        SELECT d.did, '', 'no row', 'a row' FROM engine_accounts d
        WHERE {slice} AND NOT d.active
          AND NOT EXISTS (SELECT FROM users u WHERE u.did = d.did)
        """,
        "it is not active, but users has no row that says so",
        mend="accounts",
    )


def _gone() -> Iterator[Check]:
    yield Check(
        "records of deleted accounts",
        "engine_accounts",
        "did",
        """
        SELECT w.did, '', w.found, 'nothing'
        FROM (SELECT d.did, {written} AS found FROM engine_accounts d
              WHERE {slice} AND NOT d.active AND d.status = 'deleted'
                AND NOT EXISTS (SELECT FROM engine_purges q WHERE q.subject = d.did)) w
        WHERE w.found IS NOT NULL
        """,
        "the account is deleted, but {found} holds records of it",
        parts={"written": _written("d.did")},
        mend="purges",
    )
    yield Check(
        "records of refused accounts",
        "engine_takedowns",
        "subject",
        _REFUSED,
        "the operator refuses this account, but {found} holds records of it",
        parts={"written": _written("d.subject"), "scheme": "'did:'"},
        mend="purges",
    )
    yield Check(
        "refused records",
        "engine_takedowns",
        "subject",
        _REFUSED,
        "the operator refuses this record, but {found} holds it",
        parts={
            "written": _first(dict.fromkeys(_RECORDS, "p.uri = d.subject")),
            "scheme": "'at://'",
        },
        mend="purges",
    )


def _users() -> Iterator[Check]:
    for table, column in PEOPLE:
        yield Check(
            f"users for {table}.{column}",
            table,
            column,
            """
            SELECT DISTINCT d.{person}, '', 'no row', 'a row' FROM {people} d
            WHERE {slice} AND NOT EXISTS (SELECT FROM users u WHERE u.did = d.{person})
            """,
            f"{table} names this account as {column}, but users has no row for it",
            {"people": table, "person": column},
            mend="users",
            settles=True,
        )


CHECKS_OF_PEOPLE: Final[tuple[Check, ...]] = (*_gone(), *_users(), *_status())
