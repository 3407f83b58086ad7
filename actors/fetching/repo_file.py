"""The repository in a CAR: its commit, and its records in the order of their paths.

What is read may be hostile. Blocks are named by their hashes, so nothing can lead back to itself;
each subtree is one layer below what it hangs on, holds a key, and every key is above the one
before. So the work is bounded by the keys, and the keys by the file.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from actors.atproto import cid, commit, uri
from actors.atproto.errors import Reason, WireError
from actors.atproto.mst import Node, decode_node
from actors.atproto.multikey import PublicKey
from actors.fetching import signed as commits
from actors.fetching.car_file import CarFile
from actors.messages import RepoRecord, RepoSlice, WholeRepo

SLICE_RECORDS: Final = 500
SLICE_BYTES: Final = 3_000_000
"""What one slice holds at most; one record alone may have 1,000,000."""


class Contents(NamedTuple):
    """How many records there are, and how many of those cannot be indexed: of a path that breaks
    the syntax, or too large.
    """

    records: int
    skipped: int


class RepoFile:
    """The repository of an account.

    Args:
        blocks: the CAR, all of it.
        did: whose it must be.
        now: Unix seconds.
        key: what it must be signed with; None: that is not looked at.
        max_bytes: what its records may have in all, each counted as often as it is named.

    Raises WireError as `signed.read` does; reading on raises it for a broken tree.
    """

    def __init__(
        self, blocks: CarFile, did: str, now: float, key: PublicKey | None, max_bytes: int
    ) -> None:
        self._blocks = blocks
        self._max_bytes = max_bytes
        self.signed = commits.read(blocks.root, blocks.get(blocks.root), did, now, key)

    def check(self) -> Iterator[Contents]:
        """Go through all of it, so that nothing of a broken one is applied.

        Tells now and then how far it is; the last is the whole. Raises WireError: BAD_MST,
        MST_BLOCK_MISSING, RECORD_MISSING, RECORDS_TOO_LARGE.
        """
        records = skipped = size_of_all = 0
        for path, name in self.paths():
            size = self._blocks.size(name)
            if size is None:
                raise WireError(Reason.RECORD_MISSING, f"no block of {cid.to_text(name)}")
            size_of_all += size
            if size_of_all > self._max_bytes:
                raise WireError(Reason.RECORDS_TOO_LARGE, f"more than {self._max_bytes} bytes")
            records += 1
            if size > commit.MAX_RECORD or uri.split_path(path) is None:
                skipped += 1
            if records % SLICE_RECORDS == 0:
                yield Contents(records, skipped)
        yield Contents(records, skipped)

    def slices(self) -> Iterator[RepoSlice]:
        """All records that can be indexed, in slices that follow each other without gaps."""
        did, rev = self.signed.did, self.signed.rev
        after, records, size = "", list[RepoRecord](), 0
        for path, name in self.paths():
            record = self._blocks.get(name)
            if record is None:
                raise WireError(Reason.RECORD_MISSING, f"no block of {cid.to_text(name)}")
            if len(record) > commit.MAX_RECORD or uri.split_path(path) is None:
                continue
            if len(records) >= SLICE_RECORDS or (records and size + len(record) > SLICE_BYTES):
                until = records[-1].path
                yield RepoSlice(did, rev, after, until, records)
                after, records, size = until, [], 0
            records.append(RepoRecord(path, name, record))
            size += len(record)
        yield RepoSlice(did, rev, after, None, records)

    def whole(self) -> WholeRepo | None:
        """All of it at once, where that is not more than one slice."""
        first = next(self.slices())
        if first.until is not None:
            return None
        return WholeRepo(self.signed.did, self.signed.rev, self.signed.data, first.records)

    def paths(self) -> Iterator[tuple[str, bytes]]:
        """Path and CID of every record, in order; what is no ASCII in a path is replaced."""
        last = b""
        root = self._node(self.signed.data, None)
        if not root.keys and root.trees[0] is not None:
            raise WireError(Reason.BAD_MST, "the root is a node without keys above another")
        # A node, and which of its parts comes next: trees are even, keys odd.
        stack = [(root, 0)]
        while stack:
            node, part = stack.pop()
            if part < 2 * len(node.keys):
                stack.append((node, part + 1))
            index = part // 2
            if part % 2 == 0:
                tree = node.trees[index]
                if isinstance(tree, bytes):
                    stack.append((self._below(node, tree), 0))
                continue
            key = node.keys[index]
            if key <= last:
                raise WireError(Reason.BAD_MST, f"key {key[:80]!r} is out of order")
            last = key
            yield key.decode("ascii", "replace"), node.values[index]

    def _below(self, node: Node, name: bytes) -> Node:
        if node.layer <= 0:
            raise WireError(Reason.BAD_MST, "a subtree below the lowest layer")
        tree = self._node(name, node.layer - 1)
        if tree.is_empty():
            raise WireError(Reason.BAD_MST, "an empty subtree")
        return tree

    def _node(self, name: bytes, layer: int | None) -> Node:
        block = self._blocks.get(name)
        if block is None:
            raise WireError(Reason.MST_BLOCK_MISSING, f"no block of {cid.to_text(name)}")
        return decode_node(block, layer, name)
