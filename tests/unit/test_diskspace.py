"""When the free space of the disk warns, pauses the intake and lets it go on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from actors.store.diskspace import DiskSpace, Space, free_bytes, judge

WARN = 5_000
PAUSE = 1_000


@pytest.mark.parametrize(
    ("free", "before", "after"),
    [
        (5_000, Space.PLENTY, Space.PLENTY),
        (4_999, Space.PLENTY, Space.LOW),
        (1_000, Space.PLENTY, Space.LOW),
        (999, Space.PLENTY, Space.EXHAUSTED),
        (0, Space.LOW, Space.EXHAUSTED),
        (1_000, Space.EXHAUSTED, Space.EXHAUSTED),
        (1_099, Space.EXHAUSTED, Space.EXHAUSTED),
        (1_100, Space.EXHAUSTED, Space.LOW),
        (5_000, Space.EXHAUSTED, Space.PLENTY),
        (5_000, Space.LOW, Space.PLENTY),
    ],
)
def test_thresholds(free: int, before: Space, after: Space) -> None:
    assert judge(free, warn_below=WARN, pause_below=PAUSE, before=before) is after


def test_zero_switches_a_threshold_off() -> None:
    assert judge(0, warn_below=0, pause_below=0, before=Space.PLENTY) is Space.PLENTY


def test_each_change_is_told_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO)
    free = iter([9_000, 4_000, 3_000, 500, 400, 1_050, 2_000, 9_000])
    disk = DiskSpace(tmp_path, warn_below=WARN, pause_below=PAUSE, measure=lambda _: next(free))
    paused = []
    for _ in range(8):
        disk.check()
        paused.append(disk.must_pause)
    assert paused == [False, False, False, True, True, True, False, False]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "ERROR", "INFO", "WARNING"]
    assert all(str(tmp_path) in record.getMessage() for record in caplog.records)


def test_a_real_disk_is_measured(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert free > 0
    disk = DiskSpace(tmp_path, warn_below=0, pause_below=1 << 60)
    assert disk.check() is Space.EXHAUSTED
    assert disk.free > 0


def test_a_folder_that_is_gone_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskSpace(tmp_path / "gone", warn_below=1, pause_below=1).check()
