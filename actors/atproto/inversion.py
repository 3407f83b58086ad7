"""Whether the operations of a commit lead from the tree before it to the tree after it.

They are undone on the part of the tree that the commit carries; what comes out must be `prevData`.
So neither a change that is not told nor one that is told and did not happen gets through. Source:
the atproto specification, "Sync", section "Commit Validation".
"""

from typing import Final

from actors.atproto import cid
from actors.atproto.commit import OpenCommit, RecordOp
from actors.atproto.errors import Reason, WireError
from actors.atproto.events import Action
from actors.atproto.mst import Node, Tree

# The root of a tree without keys, where every repository begins.
EMPTY_TREE: Final = cid.compute(Node(0, [], [], [None]).encode())


def check(opened: OpenCommit, prev_data: bytes | None) -> None:
    """Undo the operations of a commit and compare what comes out with `prev_data`.

    None is the first commit of a repository, which begins with an empty tree. Raises WireError:
    TREE_MISMATCH where the operations are not what happened, MST_BLOCK_MISSING and BAD_MST where
    the commit does not carry what it must.
    """
    after, wanted = opened.signed.data, EMPTY_TREE if prev_data is None else prev_data
    if not opened.ops and after == wanted:
        return  # servers then send no part of the tree, and none is needed
    tree = Tree.load(after, opened.blocks)
    for op in sorted(opened.ops, key=_deletions_first):
        path = f"{op.collection}/{op.rkey}"
        key = path.encode()
        if op.action is Action.DELETE:
            if tree.get(key) is not None:
                raise WireError(Reason.TREE_MISMATCH, f"{path} is deleted and still there")
            # Without `prev` it was made by the same commit: there is nothing to undo. Where that is
            # not so, the trees differ in the end.
            if op.prev is not None:
                tree.put(key, op.prev)
            continue
        try:
            held = tree.delete(key) if op.prev is None else tree.put(key, op.prev)
        except KeyError:
            held = None
        if held != op.cid:
            raise WireError(Reason.TREE_MISMATCH, f"{path} is not what the tree holds")
    before, _blocks = tree.seal()
    if before != wanted:
        raise WireError(
            Reason.TREE_MISMATCH, "the operations do not lead from the tree before to that after"
        )


def _deletions_first(op: RecordOp) -> tuple[bool, str, str]:
    return op.action is not Action.DELETE, op.collection, op.rkey


def proves(root: bytes, blocks: dict[bytes, bytes], path: str, record: bytes | None) -> bool:
    """Whether the tree of this root holds a record (its CID) at a path, or none, as far as `blocks`
    show. Raises WireError as `check` where they do not show it.
    """
    return Tree.load(root, blocks).get(path.encode()) == record
