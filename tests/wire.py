"""Small valid frames, CARs and commits for tests, made by hand."""

from typing import Any

from actors.atproto import car, cbor, cid, frames, mst

DID = "did:plc:6rccq36mzkt43saroyej2tyx"
REV = "3n2z2cjzezs27"
SINCE = "3n2z2cjzezr27"
TIME = "2026-11-23T21:13:33.756Z"
POST = {"$type": "app.bsky.feed.post", "text": "hello", "createdAt": TIME}


def record(**fields: Any) -> bytes:
    """The block of a post, with these fields changed."""
    return cbor.encode({**POST, **fields})


def signed(root: bytes, **fields: Any) -> bytes:
    """The block of a commit object with a made-up signature."""
    return cbor.encode(
        {
            "did": DID,
            "version": 3,
            "data": root,
            "rev": REV,
            "prev": None,
            "sig": b"\x07" * 64,
            **fields,
        }
    )


def op(action: str, path: str, block: bytes | None, prev: bytes | None = None) -> dict[str, Any]:
    """An operation as a frame holds it; `prev` is the former record's block."""
    made: dict[str, Any] = {
        "action": action,
        "path": path,
        "cid": None if block is None else cid.compute(block),
    }
    if prev is not None:
        made["prev"] = cid.compute(prev)
    return made


def commit_body(
    ops: list[dict[str, Any]], records: list[bytes], object_fields: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The body of a `#commit` with these operations and record blocks; the tree holds no more."""
    tree = mst.Tree.build(
        (entry["path"].encode(), entry["cid"]) for entry in ops if entry["cid"] is not None
    )
    root, blocks = tree.seal()
    block = signed(root, **(object_fields or {}))
    blocks = {cid.compute(block): block, **blocks, **{cid.compute(item): item for item in records}}
    return {
        "seq": 7,
        "repo": DID,
        "commit": cid.compute(block),
        "rev": REV,
        "since": SINCE,
        "prevData": cid.compute(b"before"),
        "blocks": car.write(cid.compute(block), blocks),
        "ops": ops,
        "blobs": [],
        "rebase": False,
        "tooBig": False,
        "time": TIME,
    }


def post_body(**fields: Any) -> dict[str, Any]:
    """The body of a `#commit` that creates one post, with these fields changed."""
    block = record()
    return {**commit_body([op("create", "app.bsky.feed.post/a", block)], [block]), **fields}


def frame(body: dict[str, Any], name: str = "#commit") -> bytes:
    """The frame of a body."""
    return frames.encode(name, body)
