"""Which shard a DID belongs to.

The hash is BLAKE2b with an eight-byte digest over the DID's UTF-8 bytes, read as a big-endian
number, modulo the number of shards. Python's own ``hash()`` is salted per process and may never
be used here.

Modulo, and not a consistent hash: nothing durable is keyed by a shard's number, so when the number
of shards changes between two runs no state has to move, and there is nothing that a consistent
hash would save. Golden values in the tests freeze the function all the same, because every process
of a run, and every tool that looks at one shard's share, must agree on it.
"""

from __future__ import annotations

from hashlib import blake2b


def stable_hash(did: str) -> int:
    """Return a 64-bit number that depends on the DID alone, in every process and for ever.

    Lone surrogates, which UTF-8 cannot hold, are hashed as the bytes they would be, so that no
    input raises.
    """
    digest = blake2b(did.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def shard_of(did: str, shards: int) -> int:
    """Return the index, from 0, of the shard that applies this DID's records.

    Raises:
        ValueError: there is no shard.
    """
    if shards < 1:
        raise ValueError(f"cannot shard over {shards} shards: there must be at least one")
    return stable_hash(did) % shards
