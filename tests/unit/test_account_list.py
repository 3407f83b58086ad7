"""Pages of a server's accounts: who is taken of them, and what is no such page."""

import json

import pytest

from actors.atproto.errors import Reason, WireError
from actors.fetching import account_list
from actors.fetching.account_list import MOST, Page

ANN, BOB = (f"did:plc:{letter * 24}" for letter in "ab")


def body(*repos: object, **more: object) -> bytes:
    return json.dumps({"repos": repos, **more}).encode()


def test_accounts_that_are_active_or_say_nothing_are_taken_once() -> None:
    page = body(
        {"did": ANN, "head": "x", "rev": "y", "active": True},
        {"did": BOB},
        {"did": ANN},
        {"did": "did:web:gone.test", "active": False, "status": "deactivated"},
        {"did": "did:web:odd.test", "active": 1},
        {"did": "did:unknown:x"},
        {"did": "nobody"},
        {"did": 7},
        "none",
        cursor="next",
    )
    assert account_list.read(page, None) == Page([ANN, BOB], 7, "next")


@pytest.mark.parametrize("cursor", [{}, {"cursor": None}, {"cursor": ""}])
def test_a_page_without_a_cursor_is_the_last(cursor: dict[str, object]) -> None:
    assert account_list.read(body(**cursor), "before") == Page([], 0, None)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"repos": {}}',
        body(*[{"did": ANN}] * (MOST + 1)),
        body(cursor=7),
        body(cursor="x" * 2_000),
        body(cursor="before"),
    ],
)
def test_what_is_no_page_or_leads_nowhere_is_refused(page: bytes) -> None:
    with pytest.raises(WireError) as refused:
        account_list.read(page, "before")
    assert refused.value.reason == Reason.BAD_LIST
