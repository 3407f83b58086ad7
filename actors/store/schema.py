"""The tables of the index as data: names, columns, keys and the indexes that reads need.

The first part is the contract with an AppView that reads this database: tables and columns exist
with these names, types and meanings. The second part (`engine_...`) is the engine's own. In our own
databases every string is `text`, and keys have the collation C, which is the order of their bytes.
"""

from actors.store.schema_fetching import FETCHING
from actors.store.table import Table, table

# Raised with every change of the tables; a database above it belongs to a newer program.
SCHEMA_VERSION = 2

_TIMES = "created_at! timestamp, indexed_at! timestamp = now()"
_ROW_TIMES = "created_at! timestamp = now(), updated_at! timestamp = now()"
_COMMIT = "commit_time timestamp, commit_seq text, commit_rev text"
# Counter rows are updated all the time: free space on each page keeps those updates in place.
_COUNTER_STORAGE = "fillfactor = 70"

CONTRACT: tuple[Table, ...] = (
    table(
        "users",
        "did*~ text, handle! text, display_name text, avatar_url text, banner_url text,"
        "description text, profile_record jsonb, pinned_post jsonb, search_vector tsvector,"
        "created_at! timestamp = now(), indexed_at! timestamp = now(),"
        # Null: active. The pack that the first version of the profile came by, while it names it.
        "engine_account_status text, engine_joined_via~ text",
        indexes=(
            "handle",
            "gin search_vector WHERE search_vector IS NOT NULL",
            "engine_joined_via WHERE engine_joined_via IS NOT NULL",
        ),
    ),
    table(
        "posts",
        "uri*~ text, cid! text, author_did!~ text, text! text, langs jsonb, parent_uri~ text,"
        "parent_cid text, root_uri~ text, root_cid text, embed jsonb, facets jsonb,"
        "violates_thread_gate! boolean = false, violates_embedding_rules! boolean = false,"
        "has_thread_gate! boolean = false, has_post_gate! boolean = false,"
        f"tags! jsonb = '[]', search_vector tsvector, {_TIMES}, {_COMMIT},"
        "engine_invalid_reply! boolean = false",
        indexes=(
            "author_did, created_at",
            "parent_uri WHERE parent_uri IS NOT NULL",
            "root_uri WHERE root_uri IS NOT NULL",
            "gin search_vector WHERE search_vector IS NOT NULL",
        ),
    ),
    table(
        "feed_items",
        "uri*~ text, post_uri!~ text, originator_did!~ text, type! text, sort_at! timestamp,"
        f"cid! text, {_TIMES}",
        indexes=("originator_did, sort_at DESC", "post_uri", "sort_at DESC"),
    ),
    table(
        "post_aggregations",
        "post_uri*~ text, like_count! integer = 0, repost_count! integer = 0,"
        "reply_count! integer = 0, bookmark_count! integer = 0, quote_count! integer = 0,"
        f"{_ROW_TIMES}",
        count_indexes=(
            "like_count",
            "repost_count",
            "reply_count",
            "bookmark_count",
            "quote_count",
        ),
        storage=_COUNTER_STORAGE,
    ),
    table(
        "post_viewer_states",
        "post_uri!~ text, viewer_did!~ text, like_uri text, repost_uri text,"
        "bookmarked! boolean = false, thread_muted! boolean = false,"
        "reply_disabled! boolean = false, embedding_disabled! boolean = false,"
        f"pinned! boolean = false, {_ROW_TIMES}",
        # Readers ask for one viewer and many posts, so the viewer leads and serves both.
        unique=("viewer_did, post_uri",),
        indexes=("post_uri",),
    ),
    table(
        "thread_contexts",
        f"post_uri*~ text, root_author_like_uri text, {_ROW_TIMES}",
    ),
    table(
        "likes",
        "uri*~ text, user_did!~ text, post_uri!~ text, subject_cid text, via jsonb,"
        f"{_TIMES}, {_COMMIT}",
        unique=("user_did, post_uri",),
        indexes=("post_uri", "(via ->> 'uri') WHERE via IS NOT NULL"),
    ),
    table(
        "reposts",
        "uri*~ text, user_did!~ text, post_uri!~ text, subject_cid text, via jsonb,"
        f"{_TIMES}, {_COMMIT}",
        unique=("user_did, post_uri",),
        indexes=("post_uri", "(via ->> 'uri') WHERE via IS NOT NULL"),
    ),
    table(
        "bookmarks",
        f"uri*~ text, user_did!~ text, post_uri!~ text, {_TIMES}",
        unique=("user_did, post_uri",),
        indexes=("post_uri",),
    ),
    table(
        "quotes",
        f"uri*~ text, cid! text, post_uri!~ text, quoted_uri!~ text, quoted_cid text, {_TIMES}",
        unique=("post_uri, quoted_uri",),
        indexes=("quoted_uri",),
    ),
    table(
        "follows",
        f"uri*~ text, follower_did!~ text, following_did!~ text, {_TIMES}, {_COMMIT}",
        unique=("follower_did, following_did",),
        indexes=("following_did",),
    ),
    table(
        "blocks",
        f"uri*~ text, blocker_did!~ text, blocked_did!~ text, {_TIMES}, {_COMMIT}",
        unique=("blocker_did, blocked_did",),
        indexes=("blocked_did",),
    ),
    table(
        "list_blocks",
        f"uri*~ text, blocker_did!~ text, list_uri!~ text, {_TIMES}",
        unique=("blocker_did, list_uri",),
        indexes=("list_uri",),
    ),
    table(
        "mutes",
        f"uri*~ text, muter_did!~ text, muted_did!~ text, {_TIMES}",
        unique=("muter_did, muted_did",),
        indexes=("muted_did",),
    ),
    table(
        "list_mutes",
        f"uri*~ text, muter_did!~ text, list_uri!~ text, {_TIMES}",
        unique=("muter_did, list_uri",),
        indexes=("list_uri",),
    ),
    table(
        "thread_mutes",
        f"uri*~ text, muter_did!~ text, thread_root_uri!~ text, {_TIMES}",
        unique=("muter_did, thread_root_uri",),
        indexes=("thread_root_uri",),
    ),
    table(
        "user_settings",
        "user_did*~ text, blocked_keywords! jsonb = '[]', muted_users! jsonb = '[]',"
        "custom_lists! jsonb = '[]', feed_preferences! jsonb = '{}',"
        "data_collection_forbidden! boolean = false, last_backfill_at timestamp,"
        "last_liked_posts_backfill timestamp, last_follows_backfill timestamp,"
        "last_feeds_backfill timestamp, last_notifications_backfill timestamp,"
        f"{_ROW_TIMES}",
    ),
    table(
        "labels",
        "uri*~ text, src!~ text, subject!~ text, val! text, neg! boolean = false,"
        # When the label expires. It stays afterwards, with `neg`; so does one that was negated,
        # which has no such time.
        f"{_TIMES}, cid text, cts text, exp text, sig bytea, ver integer, engine_expires timestamp",
        indexes=(
            "subject, val",
            "src",
            "val",
            "engine_expires WHERE engine_expires IS NOT NULL AND NOT neg",
        ),
    ),
    table(
        "label_definitions",
        "id* serial, value! text, description text, severity! text = 'warn',"
        f"localized_strings jsonb = '{{}}', {_ROW_TIMES}",
        unique=("value",),
    ),
    table(
        "label_events",
        "id* bigserial, label_uri!~ text, action! text, created_at! timestamp = now()",
        indexes=("created_at", "label_uri"),
    ),
    table(
        "notifications",
        "id* bigserial, uri!~ text, recipient_did!~ text, author_did!~ text, reason! text,"
        f"reason_subject text, cid text, is_read! boolean = false, {_TIMES},"
        "engine_record_uri~ text",
        unique=("uri",),
        indexes=(
            "recipient_did, created_at DESC",
            "engine_record_uri WHERE engine_record_uri IS NOT NULL",
        ),
    ),
    table(
        "activity_subscriptions",
        "uri*~ text, cid! text, subscriber_did!~ text, subject_did!~ text,"
        f"priority! boolean = false, {_TIMES}",
        unique=("subscriber_did, subject_did",),
        indexes=("subject_did",),
    ),
    table(
        "lists",
        "uri*~ text, cid! text, creator_did!~ text, name! text, purpose! text, description text,"
        f"avatar_url text, {_TIMES}",
        indexes=("creator_did", "indexed_at"),
    ),
    table(
        "list_items",
        f"uri*~ text, cid! text, list_uri!~ text, subject_did!~ text, {_TIMES}",
        unique=("list_uri, subject_did",),
        indexes=("subject_did",),
    ),
    table(
        "feed_generators",
        "uri*~ text, cid! text, creator_did!~ text, did!~ text, display_name! text,"
        f"description text, avatar_url text, like_count! integer = 0, {_TIMES}",
        indexes=("creator_did", "did", "indexed_at"),
        count_indexes=("like_count",),
    ),
    table(
        "starter_packs",
        "uri*~ text, cid! text, creator_did!~ text, name! text, description text, list_uri~ text,"
        f"feeds! jsonb = '[]', {_TIMES}",
        indexes=("creator_did", "list_uri", "indexed_at"),
    ),
    table(
        "labeler_services",
        f"uri*~ text, cid! text, creator_did!~ text, policies! jsonb, like_count! integer = 0,"
        f"{_TIMES}",
        indexes=("creator_did", "indexed_at"),
        count_indexes=("like_count",),
    ),
    table(
        "verifications",
        "uri*~ text, cid! text, subject_did!~ text, handle! text, verified_at! timestamp,"
        f"{_TIMES}, issuer_did~ text",
        unique=("issuer_did, subject_did",),
        indexes=("subject_did", "handle"),
    ),
    table(
        "firehose_cursor",
        "id* serial, service! text, cursor text, last_event_time timestamp,"
        "updated_at! timestamp = now()",
        unique=("service",),
    ),
    table(
        "generic_records",
        f"uri*~ text, cid! text, author_did!~ text, record_type! text, record! jsonb, {_TIMES}",
        indexes=("author_did", "record_type, created_at"),
    ),
    table(
        "thread_gates",
        "post_uri*~ text, owner_did!~ text, allow_mentions! boolean = true,"
        "allow_following! boolean = true, allow_list_members! boolean = false,"
        f"allow_list_uris! jsonb = '[]', {_ROW_TIMES}, allow jsonb,"
        "hidden_replies jsonb",
        indexes=("owner_did",),
    ),
    table(
        "post_gates",
        "post_uri*~ text, created_at! timestamp = now(), embedding_rules! jsonb = '{}'",
    ),
)

ENGINE: tuple[Table, ...] = (
    # The program's version of these tables, in one row.
    table("engine_schema", "id* integer = 1, version! integer"),
    # The rev guard: the last applied state of each repository; `withheld`: some may not be stored.
    table(
        "engine_repos",
        "did*~ text, rev! text, data bytea, out_of_step! boolean = false,withheld! boolean = false",
        indexes=("did WHERE out_of_step", "withheld, did WHERE withheld"),
        storage=_COUNTER_STORAGE,
    ),
    table(
        "engine_user_aggregations",
        "did*~ text, followers_count! integer = 0, follows_count! integer = 0,"
        "posts_count! integer = 0",
        storage=_COUNTER_STORAGE,
    ),
    # Likes of what is no post: generators, labelers, and whatever else is liked.
    table(
        "engine_subject_aggregations",
        "uri*~ text, like_count! integer = 0",
        storage=_COUNTER_STORAGE,
    ),
    # Records whose thing another record of the same author holds; `body` is their row.
    table(
        "engine_duplicates",
        "uri*~ text, table_name! text, thing!~ text, cid text, body! jsonb",
        indexes=("table_name, thing",),
    ),
    # Operations (`uri` is the record) that wait for a subject (`awaited`) that is not indexed.
    table(
        "engine_pending",
        "uri*~ text, awaited*~ text, author!~ text, kind! text, created_at! timestamp = now()",
        indexes=("awaited", "created_at"),
    ),
    # What the last #account and #identity event of each DID said; both have a guard of their own.
    table(
        "engine_accounts",
        "did*~ text, active! boolean = true, status text, host text, seq bigint, time timestamp,"
        "identity_host text, identity_seq bigint, identity_time timestamp",
    ),
    # Who each account is, by its DID document (see actors/store/identities.py).
    table(
        "engine_identities",
        "did*~ text, plc! boolean, rank! integer = 2, next_check! timestamp = now(),"
        "checked_at timestamp, failures! integer = 0, handle text, claimed text, pds text,"
        "signing_key text, labeler text, label_key text, problem text, stale! boolean = false,"
        "created_at! timestamp = now()",
        indexes=("plc, rank, next_check",),
    ),
    *FETCHING,
    # Whose events are taken (see actors/store/personal.py), and whether it is still to be ordered.
    table("engine_personal", "did*~ text, fresh! boolean = true", indexes=("did WHERE fresh",)),
    # How far each labeler has been read, by the numbers of its endpoint, and why it is not read.
    table(
        "engine_labelers",
        "did*~ text, endpoint text, cursor bigint, problem text, updated_at! timestamp = now()",
    ),
    # The last of `label_events` that an outside label service was told of.
    table("engine_label_forwards", "url* text, event! bigint, updated_at! timestamp = now()"),
    # DIDs and record uris that the operator refuses.
    table("engine_takedowns", "subject*~ text, created_at! timestamp = now()"),
    # DIDs whose records are being removed, slice by slice, and how many are gone.
    table(
        "engine_purges",
        "subject*~ text, reason! text, removed! bigint = 0, created_at! timestamp = now()",
    ),
    # DIDs whose live events wait; since those up to `looked` came, the identity was looked at.
    table(
        "engine_parked",
        "did*~ text, reason! text, draining! boolean = false, bytes! bigint = 0,"
        "overflowed! boolean = false, looked! bigint = 0, created_at! timestamp = now()",
        indexes=("created_at WHERE draining", "did WHERE reason = 'resync'"),
    ),
    # Those events, as they came; of authors who are `withheld`, without their records.
    table(
        "engine_resync_buffer",
        "id* bigserial, did!~ text, host! text, seq! bigint = 0, body! bytea, withheld boolean",
        indexes=("did, id", "did, seq"),
    ),
    # The newest drops: what was not indexed (uri or DID), and why.
    table(
        "engine_drops",
        "id* bigserial, subject!~ text, reason! text, detail! text,created_at! timestamp = now()",
        indexes=("subject",),
    ),
    # Work of a batch for another actor, written in the batch's transaction.
    table(
        "engine_outbox",
        "id* bigserial, receiver! text, body! bytea, created_at! timestamp = now()",
        indexes=("receiver, id",),
    ),
    # The run that owns this database; raised at each start.
    table(
        "engine_epoch",
        "id* integer = 1, epoch! bigint, holder! text, started_at! timestamp = now(),"
        "ended! boolean = false",
    ),
    # The time of the first events: what a fetch brings from before it is no news.
    table("engine_beginning", "id* integer = 1, time! timestamp"),
    # The living generation of each actor that writes, within an epoch.
    table("engine_fences", "actor* text, epoch! bigint, generation! bigint"),
    # How much each actor did in each run.
    table(
        "engine_tallies",
        "epoch* bigint, actor* text, name* text, amount! bigint",
        storage=_COUNTER_STORAGE,
    ),
    # Frames that killed their shard again and again, and why.
    table(
        "engine_dead_letters",
        "id* bigserial, sender! text, receiver! text, reason! text, body! bytea,"
        "created_at! timestamp = now()",
    ),
)

TABLES: dict[str, Table] = {made.name: made for made in CONTRACT + ENGINE}


def schema_relations(*, count_indexes: bool = False) -> dict[str, str]:
    """Return every table and index by name, with the statement that makes it, in order."""
    relations: dict[str, str] = {}
    for made in TABLES.values():
        relations[made.name] = made.create_sql()
        relations |= made.index_sql(count_indexes=count_indexes)
    return relations


def create_schema_sql(*, count_indexes: bool = False) -> list[str]:
    """Return the statements that make every table and index of an empty database."""
    return list(schema_relations(count_indexes=count_indexes).values())
