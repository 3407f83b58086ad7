"""Addresses: the names under which actors are known to each other and to the supervisor."""

from __future__ import annotations

from typing import TypeAlias

Address: TypeAlias = str
"""The name of one actor, such as ``"ingest"`` or ``"shard-3"``."""

_MARK = "#"


def member(group: str, index: int) -> Address:
    """Return the address of one member of a group: ``member("shard", 3) == "shard-3"``."""
    if index < 0:
        raise ValueError(f"a member of group {group!r} cannot have the index {index}")
    return f"{group}-{index}"


def identity(name: Address, generation: int) -> bytes:
    """Return the routing id of one generation of an actor.

    The generation is part of the id: a socket that is told of a second peer under an id that it
    knows ignores the newcomer and goes on writing to the dead one.
    """
    return f"{name}{_MARK}{generation}".encode()


def parse_identity(raw: bytes) -> tuple[Address, int]:
    """Return the name and generation in a routing id.

    Raises:
        ValueError: the id was not made by `identity`.
    """
    name, mark, generation = raw.decode("utf-8").rpartition(_MARK)
    if not mark or not name or not generation.isdecimal():
        raise ValueError(f"not the routing id of an actor: {raw!r}")
    return name, int(generation)
