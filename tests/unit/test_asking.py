"""Asking for whole repositories whose live events go on: small ones at once, large ones in two
steps."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.fetching import repo_file
from actors.fetching.asking import (
    Account,
    Admission,
    Asking,
    Failed,
    Item,
    Limits,
    ReadWhole,
    Ready,
    Sliced,
    Whole,
)
from actors.outbound import Outbound
from bench.network import Network
from bench.network_account import did_of
from tests.servers.client import developing
from tests.servers.pds import Pds
from tests.servers.repository import Repository

SEED = 5
GET_REPO = "/xrpc/com.atproto.sync.getRepo"
EVENTS = list(Network(SEED, 10).events(600))


class Stage:
    """A server, and what was delivered by asking it."""

    def __init__(self, pds: Pds) -> None:
        self.pds = pds
        self.items: list[Item] = []
        self.paused: list[int] = []

    @property
    def repository(self) -> Repository:
        return self.pds.repositories[did_of(SEED, 0)]

    async def deliver(self, item: Item) -> None:
        self.items.append(item)

    async def pause(self, records: int) -> None:
        self.paused.append(records)

    async def backfill(self, *steps: Any) -> None:
        """Ask; each time that something was delivered a step is taken."""
        admission = Admission()
        async with Outbound(developing(requests_per_second=1000.0)) as outbound:
            asking = Asking(outbound, Limits(1 << 30, 60.0, None), lambda: 1.8e9, self.pause)
            account = Account(self.repository.did, self.pds.url, None)
            task = asyncio.create_task(
                asking.backfill(1, account, asyncio.Semaphore(99), admission, self.deliver)
            )
            if steps:
                while Ready(1) not in self.items:
                    await asyncio.sleep(0.001)
                (guard,) = [step() for step in steps]
                await admission.admit(guard, self.deliver)
            await asyncio.wait_for(task, 30.0)


@pytest.fixture
def stage() -> Iterator[Stage]:
    pds = Pds()
    pds.feed(*EVENTS[:300])
    for repository in pds.repositories.values():
        repository.status = None
    with pds:
        yield Stage(pds)


def test_a_small_one_comes_at_once_in_its_turn(stage: Stage) -> None:
    asyncio.run(stage.backfill())
    (item,) = stage.items
    assert isinstance(item, Whole)
    held = stage.repository
    assert (item.repo.did, item.repo.rev, item.repo.data) == (
        held.did,
        held.rev,
        held.signed["data"],
    )
    assert {each.path: each.cid for each in item.repo.records} == held.records()
    assert stage.paused == [len(held.records())]


def test_a_large_one_is_handed_on_once_its_events_wait(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repo_file, "SLICE_RECORDS", 5)
    asyncio.run(stage.backfill(lambda: stage.repository.rev))
    ready, *parts, end = stage.items
    assert (ready, isinstance(end, ReadWhole)) == (Ready(1), True)
    records = [
        each.path for part in parts if isinstance(part, Sliced) for each in part.slice.records
    ]
    assert records == list(stage.repository.records())
    assert stage.pds.asked()[GET_REPO] == 1
    assert sum(stage.paused) == len(records)


def test_a_large_one_whose_account_went_on_writing_is_read_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repo_file, "SLICE_RECORDS", 5)

    def goes_on() -> str:
        before = stage.repository.rev
        stage.pds.feed(*EVENTS[300:])
        assert stage.repository.rev > before
        return stage.repository.rev

    asyncio.run(stage.backfill(goes_on))
    end = stage.items[-1]
    assert isinstance(end, ReadWhole)
    assert end.rev == stage.repository.rev
    assert stage.pds.asked()[GET_REPO] == 2


def test_one_that_is_not_there_fails_before_anything_waits(stage: Stage) -> None:
    stage.repository.status = "deactivated"
    asyncio.run(stage.backfill())
    (item,) = stage.items
    assert isinstance(item, Failed)
    assert item.failure.reason == "RepoDeactivated"
