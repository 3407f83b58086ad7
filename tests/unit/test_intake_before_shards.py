"""What comes before a shard has come up."""

import pytest

from actors.atproto.events import Kind
from tests.unit.test_personal_intake import MINE, Stage, frame


@pytest.mark.parametrize("limit", [1, 9])
def test_what_came_before_its_shard_goes_as_soon_as_that_is_up(limit: int) -> None:
    stage = Stage(None)
    (window,) = stage.windows
    window.limit_frames = window.batch_frames = limit + 1
    stage.told.there = False
    for seq in range(1, limit + 1):
        stage.take(Kind.COMMIT, seq, MINE)
    stage.intake.flush()
    assert stage.told.frames == []
    # Nothing more need come for it: a quiet source would keep it back for as long.
    stage.told.there = True
    stage.intake.peer("shard-0", 1, up=True)
    assert stage.told.frames == [frame(Kind.COMMIT, seq, MINE) for seq in range(1, limit + 1)]


def test_what_is_complete_before_its_shard_goes_as_soon_as_that_is_up() -> None:
    stage = Stage(None)
    stage.told.there = False
    stage.take(Kind.COMMIT, 1, MINE)
    stage.told.there = True
    stage.intake.peer("shard-0", 1, up=True)
    assert stage.told.frames == [frame(Kind.COMMIT, 1, MINE)]
