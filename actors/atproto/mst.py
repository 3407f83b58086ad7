"""Merkle search trees: the map from paths to record CIDs that every repository is.

A key's layer is the number of leading zero bit pairs of its SHA-256, so the shape of a tree follows
from its keys alone. A node holds the keys of one layer; between them hang the subtrees of the layer
below. A tree is changed in place, at the cost of one path; only nodes that changed are encoded
again. Subtrees may be known by CID alone: they are loaded from the given blocks when a change needs
them. Source: the atproto specification, "Repository", section "MST Structure".
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from actors.atproto import cbor, cid
from actors.atproto.errors import Reason, WireError

MAX_KEY: Final = 1024
_NO_BLOCKS: Final[Mapping[bytes, bytes]] = {}
_sha256 = hashlib.sha256


def layer_of(key: bytes) -> int:
    """The layer of a key: 0 for three of four keys, 1 for three of sixteen, and so on."""
    return (256 - int.from_bytes(_sha256(key).digest(), "big").bit_length()) // 2


class Node:
    """Keys of one layer in order, their values, and the subtrees before, between and after them.

    `trees` has one more entry than `keys`; an entry is a node, the CID of one not loaded, or None.
    `cid` is None from a change until the tree is sealed.
    """

    __slots__ = ("cid", "keys", "layer", "trees", "values")

    def __init__(
        self,
        layer: int,
        keys: list[bytes],
        values: list[bytes],
        trees: "list[Node | bytes | None]",
        name: bytes | None = None,
    ) -> None:
        self.layer = layer
        self.keys = keys
        self.values = values
        self.trees = trees
        self.cid = name

    def is_empty(self) -> bool:
        return not self.keys and self.trees[0] is None

    def encode(self) -> bytes:
        """The block of this node; its subtrees must be sealed."""
        entries = []
        before = b""
        trees = self.trees
        for index, key in enumerate(self.keys):
            shared = _shared(before, key)
            entries.append(
                {
                    "p": shared,
                    "k": key[shared:],
                    "v": self.values[index],
                    "t": _name(trees[index + 1]),
                }
            )
            before = key
        return cbor.encode({"l": _name(trees[0]), "e": entries})


def decode_node(block: bytes, layer: int | None = None, name: bytes | None = None) -> Node:
    """The node in a block.

    `layer` is the one it must have; without it that follows from the first key, and is -1 for a
    node without keys. Raises WireError(BAD_MST) for wrong fields, keys out of order or of another
    layer.
    """
    try:
        fields = cbor.decode(block)
    except WireError as error:
        raise WireError(Reason.BAD_MST, f"a node: {error.detail}") from None
    entries = fields.get("e") if type(fields) is dict else None
    if type(entries) is not list:
        raise WireError(Reason.BAD_MST, "a node without a list of entries")
    keys: list[bytes] = []
    values: list[bytes] = []
    trees: list[Node | bytes | None] = [_link(fields.get("l"))]
    before = b""
    for entry in entries:
        key, value, tree = _entry(entry, before)
        level = layer_of(key)
        if layer is None:
            layer = level
        if key <= before or level != layer:
            raise WireError(Reason.BAD_MST, f"key {key[:80]!r} is out of order or of layer {level}")
        keys.append(key)
        values.append(value)
        trees.append(tree)
        before = key
    return Node(-1 if layer is None else layer, keys, values, trees, name)


class Tree:
    """A merkle search tree, changed in place.

    Raises WireError(MST_BLOCK_MISSING) where a change needs a node that is not in the blocks the
    tree was loaded from, and BAD_MST where such a node is broken.
    """

    def __init__(
        self, root: Node | None = None, blocks: Mapping[bytes, bytes] = _NO_BLOCKS
    ) -> None:
        self._root = root or Node(0, [], [], [None])
        self._blocks = blocks

    @classmethod
    def load(cls, root: bytes, blocks: Mapping[bytes, bytes]) -> "Tree":
        """The tree whose root node has this CID, as far as `blocks` holds it."""
        tree = cls(None, blocks)
        node = decode_node(tree._block(root), None, root)
        if not node.keys and node.trees[0] is not None:
            raise WireError(Reason.BAD_MST, "the root is a node without keys above another")
        node.layer = max(node.layer, 0)
        tree._root = node
        return tree

    @classmethod
    def build(cls, items: Iterable[tuple[bytes, bytes]]) -> "Tree":
        """The tree of these keys and values."""
        tree = cls()
        for key, value in items:
            tree.put(key, value)
        return tree

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        level = layer_of(key)
        node: Node | None = self._root
        while node is not None and node.layer >= level:
            index = bisect_left(node.keys, key)
            if index < len(node.keys) and node.keys[index] == key:
                return node.values[index]
            node = self._tree(node, index)
        return None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values, in order."""
        return self._items(self._root)

    def put(self, key: bytes, value: bytes) -> bytes | None:
        """Set the value of a key, and give its former value."""
        level = layer_of(key)
        root = self._root
        if root.is_empty():
            root.layer = level
        if level > root.layer:
            left, right = self._split(root, key)
            below = level - 1
            trees: list[Node | bytes | None] = [_raise(left, below), _raise(right, below)]
            self._root = Node(level, [key], [value], trees)
            return None
        node = root
        while True:
            index = bisect_left(node.keys, key)
            if node.layer == level:
                break
            child = self._tree(node, index)
            if child is None:
                child = node.trees[index] = Node(node.layer - 1, [], [], [None])
            node.cid = None
            node = child
        if index < len(node.keys) and node.keys[index] == key:
            former = node.values[index]
            node.values[index] = value
            node.cid = None
            return former
        node.trees[index : index + 1] = self._split(self._tree(node, index), key)
        node.keys.insert(index, key)
        node.values.insert(index, value)
        node.cid = None
        return None

    def delete(self, key: bytes) -> bytes:
        """Take a key out, and give its value. Raises KeyError where it is not there."""
        level = layer_of(key)
        path: list[tuple[Node, int]] = []
        node: Node | None = self._root
        while node is not None and node.layer > level:
            index = bisect_left(node.keys, key)
            path.append((node, index))
            node = self._tree(node, index)
        index = -1 if node is None else bisect_left(node.keys, key)
        if node is None or index == len(node.keys) or node.keys[index] != key:
            raise KeyError(key)
        former = node.values[index]
        merged = self._merge(self._tree(node, index), self._tree(node, index + 1))
        del node.keys[index], node.values[index]
        node.trees[index : index + 2] = [merged]
        node.cid = None
        for parent, at in reversed(path):
            child = parent.trees[at]
            if isinstance(child, Node) and child.is_empty():
                parent.trees[at] = None
            parent.cid = None
        self._trim()
        return former

    def seal(self) -> tuple[bytes, dict[bytes, bytes]]:
        """The CID of the root, and the blocks of the nodes that changed since the last time."""
        blocks: dict[bytes, bytes] = {}
        return _seal(self._root, blocks), blocks

    def proof(self, key: bytes, blocks: dict[bytes, bytes]) -> None:
        """Add to `blocks` what shows the key in a sealed tree and lets one undo its last change.

        These are the nodes down to the key (to the bottom where it is absent), and from there those
        down to its neighbours on both sides; those that `blocks` holds are not encoded again.
        """
        node: Node | None = self._root
        while node is not None:
            _add(node, blocks)
            index = bisect_left(node.keys, key)
            if index < len(node.keys) and node.keys[index] == key:
                left, right = self._tree(node, index), self._tree(node, index + 1)
                while left is not None:
                    _add(left, blocks)
                    left = self._tree(left, len(left.keys))
                while right is not None:
                    _add(right, blocks)
                    right = self._tree(right, 0)
                break
            node = self._tree(node, index)

    def _block(self, name: bytes) -> bytes:
        block = self._blocks.get(name)
        if block is None:
            raise WireError(Reason.MST_BLOCK_MISSING, f"no block of {cid.to_text(name)}")
        return block

    def _tree(self, node: Node, index: int) -> Node | None:
        """The subtree at `index`, loaded."""
        tree = node.trees[index]
        if type(tree) is not bytes:
            return tree  # type: ignore[return-value]  # mypy cannot narrow by an exact type
        if node.layer == 0:
            raise WireError(Reason.BAD_MST, "a subtree below the lowest layer")
        loaded = decode_node(self._block(tree), node.layer - 1, tree)
        if loaded.is_empty():
            raise WireError(Reason.BAD_MST, "an empty subtree")
        node.trees[index] = loaded
        return loaded

    def _items(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        for index in range(len(node.keys) + 1):
            child = self._tree(node, index)
            if child is not None:
                yield from self._items(child)
            if index < len(node.keys):
                yield node.keys[index], node.values[index]

    def _split(self, node: Node | None, key: bytes) -> tuple[Node | None, Node | None]:
        """What is before and what is after a key that is not in this subtree."""
        if node is None:
            return None, None
        index = bisect_left(node.keys, key)
        lower, upper = self._split(self._tree(node, index), key)
        layer, keys, values, trees = node.layer, node.keys, node.values, node.trees
        left = Node(layer, keys[:index], values[:index], [*trees[:index], lower])
        right = Node(layer, keys[index:], values[index:], [upper, *trees[index + 1 :]])
        return None if left.is_empty() else left, None if right.is_empty() else right

    def _merge(self, left: Node | None, right: Node | None) -> Node | None:
        if left is None or right is None:
            return right if left is None else left
        middle = self._merge(self._tree(left, len(left.keys)), self._tree(right, 0))
        return Node(
            left.layer,
            left.keys + right.keys,
            left.values + right.values,
            [*left.trees[:-1], middle, *right.trees[1:]],
        )

    def _trim(self) -> None:
        """A root holds at least one key, except in an empty tree."""
        root = self._root
        while not root.keys:
            child = self._tree(root, 0)
            if child is None:
                root.layer = 0
                break
            root = child
        self._root = root


def _raise(node: Node | None, layer: int) -> Node | None:
    while node is not None and node.layer < layer:
        node = Node(node.layer + 1, [], [], [node])
    return node


def _seal(node: Node, blocks: dict[bytes, bytes]) -> bytes:
    if node.cid is None:
        for tree in node.trees:
            if isinstance(tree, Node) and tree.cid is None:
                _seal(tree, blocks)
        block = node.encode()
        node.cid = cid.compute(block)
        blocks[node.cid] = block
    return node.cid


def _add(node: Node, blocks: dict[bytes, bytes]) -> None:
    if node.cid is None:
        raise ValueError("a proof is taken from a sealed tree")
    if node.cid not in blocks:
        blocks[node.cid] = node.encode()


def _name(tree: Node | bytes | None) -> bytes | None:
    return tree.cid if isinstance(tree, Node) else tree


def _shared(first: bytes, second: bytes) -> int:
    """How many bytes two keys have in common at their start."""
    size = min(len(first), len(second))
    difference = int.from_bytes(first[:size], "big") ^ int.from_bytes(second[:size], "big")
    return size - (difference.bit_length() + 7) // 8


def _entry(entry: object, before: bytes) -> tuple[bytes, bytes, bytes | None]:
    fields: dict[str, Any] = entry if type(entry) is dict else {}
    shared, suffix, value = fields.get("p"), fields.get("k"), fields.get("v")
    if (
        type(shared) is not int
        or type(suffix) is not bytes
        or type(value) is not bytes
        or not 0 <= shared <= len(before)
        or not suffix
        or shared + len(suffix) > MAX_KEY
        or not cid.is_record_cid(value)
    ):
        raise WireError(Reason.BAD_MST, f"a broken entry after key {before[:80]!r}")
    return before[:shared] + suffix, value, _link(fields.get("t"))


def _link(value: object) -> bytes | None:
    if value is None:
        return None
    if type(value) is bytes and cid.is_record_cid(value):
        return value
    raise WireError(Reason.BAD_MST, "a link to a subtree is not a CID")
