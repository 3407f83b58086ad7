"""The filter of awaited keys: never a false no, few false yes, memory by capacity alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.waiting_filter import WaitingFilter


def built(capacity: int, keys: list[str]) -> WaitingFilter:
    made = WaitingFilter(capacity)
    made.begin()
    made.fill(keys)
    made.finish()
    return made


def test_until_it_is_built_everything_may_be_waited_for() -> None:
    made = WaitingFilter(10)
    assert made.may_wait("a")
    assert made.worn
    made.begin()
    assert made.may_wait("a")
    assert not built(10, []).may_wait("a")
    assert not built(10, []).worn


def test_what_is_added_while_it_is_made_anew_is_in_both() -> None:
    made = built(10, ["old"])
    made.begin()
    made.add(["new"])
    assert made.may_wait("new")
    assert made.may_wait("old")
    made.finish()
    assert made.may_wait("new")
    assert not made.may_wait("old")


def test_few_keys_are_mistaken_when_it_holds_its_capacity() -> None:
    capacity = 20_000
    made = built(capacity, [f"at://did:plc:a/app.bsky.feed.post/{n}" for n in range(capacity)])
    wrong = sum(made.may_wait(f"at://did:plc:b/app.bsky.feed.post/{n}") for n in range(capacity))
    assert wrong < capacity / 100


def test_beyond_its_capacity_it_is_worn_and_takes_no_more_memory() -> None:
    made = built(100, [])
    size = made.size
    keys = [str(n) for n in range(100)]
    made.add(keys)
    more = [str(n) for n in range(100, 1000)]
    made.add(more)
    worn = [made.worn]
    assert made.size == size
    assert all(made.may_wait(key) for key in keys + more)
    made.begin()
    assert made.size == 2 * size
    made.finish()
    assert made.size == size
    assert [*worn, made.worn] == [True, False]


def test_a_filter_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        WaitingFilter(0)


@given(st.lists(st.text()), st.integers(1, 50))
def test_no_key_is_ever_missed(keys: list[str], capacity: int) -> None:
    made = built(capacity, keys[::2])
    made.add(keys[1::2])
    assert all(made.may_wait(key) for key in keys)


class TableAndFilter(RuleBasedStateMachine):
    """A table that changes while the filter is made anew from it in slices by key."""

    def __init__(self) -> None:
        super().__init__()
        self.table: set[str] = set()
        # Committed to the table, the filter not told yet.
        self.told: set[str] = set()
        self.filter = WaitingFilter(3)
        self.read_to: str | None = None

    @rule(key=st.text("abc", min_size=1, max_size=3))
    def commit(self, key: str) -> None:
        self.table.add(key)
        self.told.discard(key)

    @precondition(lambda self: self.table - self.told)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.table - self.told)))
        self.filter.add([key])
        self.told.add(key)

    @precondition(lambda self: self.table)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.table)))
        self.table.discard(key)
        self.told.discard(key)

    @rule()
    def begin(self) -> None:
        self.filter.begin()
        self.read_to = ""

    @precondition(lambda self: self.filter.building)
    @rule(size=st.integers(1, 4))
    def read(self, size: int) -> None:
        assert self.read_to is not None
        keys = sorted(key for key in self.table if key > self.read_to)[:size]
        self.filter.fill(keys)
        if len(keys) < size:
            self.filter.finish()
            self.read_to = None
        else:
            self.read_to = keys[-1]

    @invariant()
    def nobody_who_waits_is_missed(self) -> None:
        assert all(self.filter.may_wait(key) for key in self.table & self.told)


TestTableAndFilter = TableAndFilter.TestCase
