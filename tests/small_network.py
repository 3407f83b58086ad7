"""A small network with at least one row, and one duplicate, of everything that `verify` checks."""

from datetime import datetime
from typing import Any

from tests.reference import Record, Reference, Repo
from tests.reference_decode import record_time
from tests.reference_records import accept

ANN, BEN, CAT = "did:plc:ann", "did:plc:ben", "did:plc:cat"
AT = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - the tables hold naive times in UTC

POST = f"at://{ANN}/app.bsky.feed.post/3mbd354vwo42b"
REPLY = f"at://{BEN}/app.bsky.feed.post/3mbd354vwo42c"
QUOTE = f"at://{CAT}/app.bsky.feed.post/3mbd354vwo42d"
MEDIA_QUOTE = f"at://{CAT}/app.bsky.feed.post/3mbd354vwo42e"
ABSENT = f"at://{CAT}/app.bsky.feed.post/absent"
FEED = f"at://{ANN}/app.bsky.feed.generator/feed"
LABELER = f"at://{ANN}/app.bsky.labeler.service/self"
LIST = f"at://{ANN}/app.bsky.graph.list/list"


def _ref(uri: str) -> dict[str, str]:
    return {"uri": uri, "cid": "bafyreigh2akiscaildc"}


RECORDS: list[tuple[str, str, str, dict[str, Any]]] = [
    (ANN, "app.bsky.feed.post", "3mbd354vwo42b", {"text": "first"}),
    (
        BEN,
        "app.bsky.feed.post",
        "3mbd354vwo42c",
        {"text": "reply", "reply": {"parent": _ref(POST), "root": _ref(POST)}},
    ),
    (
        CAT,
        "app.bsky.feed.post",
        "3mbd354vwo42d",
        {"text": "quote", "embed": {"$type": "app.bsky.embed.record", "record": _ref(POST)}},
    ),
    (
        CAT,
        "app.bsky.feed.post",
        "3mbd354vwo42e",
        {
            "text": "quote with media",
            "embed": {
                "$type": "app.bsky.embed.recordWithMedia",
                "record": {"$type": "app.bsky.embed.record", "record": _ref(POST)},
            },
        },
    ),
    (ANN, "app.bsky.feed.threadgate", "3mbd354vwo42b", {"post": POST}),
    (ANN, "app.bsky.feed.postgate", "3mbd354vwo42b", {"post": POST}),
    (ANN, "app.bsky.feed.like", "1", {"subject": _ref(REPLY)}),
    (BEN, "app.bsky.feed.like", "1", {"subject": _ref(POST)}),
    (BEN, "app.bsky.feed.like", "2", {"subject": _ref(POST)}),
    (BEN, "app.bsky.feed.like", "3", {"subject": _ref(FEED)}),
    (CAT, "app.bsky.feed.like", "1", {"subject": _ref(LABELER)}),
    (CAT, "app.bsky.feed.like", "2", {"subject": _ref(ABSENT)}),
    (BEN, "app.bsky.feed.repost", "1", {"subject": _ref(POST)}),
    (BEN, "app.bsky.feed.repost", "2", {"subject": _ref(POST)}),
    (CAT, "app.bsky.bookmark", "1", {"subject": _ref(POST)}),
    (CAT, "app.bsky.bookmark", "2", {"subject": _ref(POST)}),
    (ANN, "app.bsky.graph.follow", "1", {"subject": BEN}),
    (ANN, "app.bsky.graph.follow", "2", {"subject": BEN}),
    (ANN, "app.bsky.graph.block", "1", {"subject": CAT}),
    (ANN, "app.bsky.graph.block", "2", {"subject": CAT}),
    (ANN, "app.bsky.graph.list", "list", {"name": "a list", "purpose": "p"}),
    (ANN, "app.bsky.graph.listitem", "1", {"list": LIST, "subject": BEN}),
    (ANN, "app.bsky.graph.listitem", "2", {"list": LIST, "subject": BEN}),
    (BEN, "app.bsky.graph.listblock", "1", {"subject": LIST}),
    (BEN, "app.bsky.graph.listblock", "2", {"subject": LIST}),
    (CAT, "app.bsky.graph.verification", "1", {"subject": ANN, "handle": "ann.test"}),
    (CAT, "app.bsky.graph.verification", "2", {"subject": ANN, "handle": "ann.test"}),
    (ANN, "app.bsky.graph.starterpack", "1", {"name": "a pack", "list": LIST}),
    (ANN, "app.bsky.feed.generator", "feed", {"did": "did:web:feed.test", "displayName": "feed"}),
    (ANN, "app.bsky.labeler.service", "self", {"policies": {"labelValues": []}}),
    (ANN, "com.example.thing", "1", {}),
]


def network() -> Reference:
    """The reference indexer as it stands after these records."""
    reference = Reference()
    for author, collection, rkey, fields in RECORDS:
        value = {"$type": collection, "createdAt": "2026-01-02T03:04:00Z", **fields}
        accepted = accept(author, collection, rkey, value)
        record = Record(
            author,
            collection,
            rkey,
            "bafyreia",
            value,
            accepted.fields,
            record_time(accepted.time, AT),
            AT,
            "1",
            "3mbd354vwo42b",
        )
        reference.records[record.uri] = record
        reference.users |= {author, *accepted.users}
        reference.repos[author] = Repo("3mbd354vwo42b", b"data")
    return reference
