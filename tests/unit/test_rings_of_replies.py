"""Replies that answer one another in a ring, which only a hostile account can make."""

from typing import Any

import pytest

from tests import tables
from tests.author import Author, reply
from tests.histories import Sent
from tests.reference import Reference
from tests.settling import Engine
from tests.writing import make_index

POST = "app.bsky.feed.post"


def chain(author: Author, size: int, wrong: int | None) -> list[Any]:
    """Posts of a ring, each the reply to the one before; one of them names another root."""
    uris = [author.uri(f"{POST}/n{number}") for number in range(size)]
    roots = [author.uri(f"{POST}/{'s' if number == wrong else 'r'}") for number in range(size)]
    return [
        author.put(f"{POST}/n{number}", text="", reply=reply(uris[number - 1], roots[number]))
        for number in range(size)
    ]


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_a_ring_that_is_mended_is_valid_again_and_the_registry_comes_to_rest(
    database: str, size: int
) -> None:
    index = make_index(database)
    author = Author(1)
    reference = Reference()

    def take(frame: bytes) -> None:
        engine.deliver([Sent(author.did, frame)])
        reference.frame(frame)

    def flags() -> dict[str, bool]:
        held = tables.read_tables(index)["posts"]
        return {key[0]: row["engine_invalid_reply"] for key, row in held.items()}

    def wanted() -> dict[str, bool]:
        reference.settle()
        held = reference.tables()["posts"]
        return {key[0]: row["engine_invalid_reply"] for key, row in held.items()}

    with Engine(index, seed=size) as engine:
        roots = [author.put(f"{POST}/{key}", text="") for key in "rs"]
        take(author.frame(*roots, *chain(author, size, wrong=None)))
        take(author.frame(*chain(author, size, wrong=0)))
        engine.settle()
        assert flags() == wanted()
        assert sum(flags().values()) == size, "one wrong root makes the whole ring invalid"
        # Mended before anybody has looked: one that was judged invalid stands above all others.
        take(author.frame(chain(author, size, wrong=None)[0]))
        engine.settle()
        assert flags() == wanted()
        assert not any(flags().values())
