"""The bounds of a shard's window, in frames and bytes, and of the batches cut from it."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Frames
from actors.shard_window import ShardWindow


def window(**over: int) -> ShardWindow:
    settings = {"limit_frames": 10, "limit_bytes": 1000, "batch_frames": 4, "batch_bytes": 300}
    return ShardWindow("shard-0", **(settings | over))


def test_a_window_is_full_in_frames() -> None:
    full = window()
    for position in range(10):
        assert full.fits(1)
        full.add(position, b"x")
    assert not full.fits(1)


def test_a_window_is_full_in_bytes() -> None:
    full = window()
    full.add(1, bytes(999))
    assert full.fits(1)
    assert not full.fits(2)


def test_a_frame_larger_than_the_window_passes_alone() -> None:
    empty = window()
    assert empty.fits(5000)
    empty.add(1, bytes(5000))
    assert not empty.fits(0)


def test_an_ack_gives_room_back() -> None:
    full = window()
    for position in range(10):
        full.add(position, bytes(100))
    assert not full.fits(1)
    frames, batch = full.cut()
    assert len(frames) == 10
    assert batch.positions == list(range(10))
    full.release(batch)
    assert (full.unacked_frames, full.unacked_bytes) == (0, 0)


def test_a_batch_is_complete_by_count_or_by_bytes() -> None:
    by_count = window()
    assert [by_count.add(n, b"x") for n in range(4)] == [False, False, False, True]
    by_bytes = window()
    assert by_bytes.add(1, bytes(299)) is False
    assert by_bytes.add(2, b"x") is True


def test_a_frame_joins_a_batch_only_within_its_bytes() -> None:
    half = window()
    half.add(1, bytes(200))
    assert half.joins(100)
    assert not half.joins(101)
    half.cut()
    assert half.joins(10_000)


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=40))
def test_no_message_is_larger_than_it_says(frames: list[bytes]) -> None:
    filled = window(batch_frames=1000, batch_bytes=10**6)
    for position, frame in enumerate(frames):
        filled.add(position, frame)
    bound = filled.message_size
    sent, _ = filled.cut()
    assert len(msgspec.msgpack.encode(Frames("relay.example:2470", sent))) <= bound
