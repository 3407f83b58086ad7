"""Captures: what is written is read again, and a broken file says where it breaks."""

import gzip
from pathlib import Path

import pytest

from actors import capture

FRAMES = [b"", b"one", b"x" * 100_000]


@pytest.mark.parametrize("name", ["a.frames", "a.frames.gz"])
def test_a_capture_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert capture.write(path, FRAMES) == 3
    assert list(capture.read(path)) == FRAMES
    assert (path.read_bytes()[:2] == b"\x1f\x8b") is name.endswith(".gz")


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.gz", tmp_path / "b.gz"
    capture.write(first, FRAMES)
    capture.write(second, FRAMES)
    assert first.read_bytes() == second.read_bytes()


def test_compression_is_seen_in_the_bytes_and_not_in_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(gzip.compress(b"\0\0\0\x02hi"))
    assert list(capture.read(path)) == [b"hi"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("missing", [1, 99_999, 100_003])
def test_a_capture_that_ends_within_a_frame_gives_the_frames_before(
    tmp_path: Path, missing: int, compressed: bool
) -> None:
    path = tmp_path / "a.frames"
    capture.write(path, FRAMES)
    cut = path.read_bytes()[:-missing]
    path.write_bytes(gzip.compress(cut) if compressed else cut)
    frames = capture.read(path)
    assert [next(frames), next(frames)] == FRAMES[:2]
    with pytest.raises(capture.CaptureError, match=r"a\.frames ends within frame 2"):
        next(frames)


def test_a_truncated_gzip_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.frames.gz"
    capture.write(path, FRAMES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(capture.CaptureError, match="within frame"):
        list(capture.read(path))


def test_a_damaged_gzip_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.frames.gz"
    capture.write(path, [bytes(range(256)) * 50])
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(capture.CaptureError, match="cannot be read"):
        list(capture.read(path))


def test_an_impossible_length_is_told_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(b"\xff\xff\xff\xff and so on")
    with pytest.raises(capture.CaptureError, match="is no capture"):
        list(capture.read(path))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(capture.CaptureError, match="cannot be read"):
        list(capture.read(tmp_path / "none.frames"))


def test_an_empty_file_is_an_empty_capture(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    path.write_bytes(b"")
    assert list(capture.read(path)) == []
