"""Reads a labeler on loopback as the label client does, to the place where labels are written."""

import asyncio
import random

from actors.labeler_identity import DocumentLookup
from actors.labeler_reader import LabelerReader, ReaderItem, ReaderSettings, Received
from actors.outbound import Outbound
from actors.store.labelers import LabelerState
from engine.restarts import Backoff
from tests.servers.client import developing


def read_labeler(did: str, plc_url: str, last: int, now: float) -> list[Received]:
    """What the reader delivers of a labeler at `now`, from its first frame up to the `last`."""
    return asyncio.run(_read(did, plc_url, last, now))


async def _read(did: str, plc_url: str, last: int, now: float) -> list[Received]:
    received: list[Received] = []
    done = asyncio.Event()
    async with Outbound(developing(plc_url=plc_url)) as outbound:
        reader = LabelerReader(
            did,
            1,
            LabelerState(),
            ReaderSettings(Backoff(0.01, 0.05), 60.0, 1024 * 1024),
            outbound=outbound,
            lookup=DocumentLookup(outbound, plc_url, development=True),
            now=lambda: now,
            chance=random.Random(1),
        )

        async def deliver(item: ReaderItem) -> None:
            if isinstance(item, Received):
                received.append(item)
                reader.written(item)
                if item.seq == last:
                    done.set()

        task = asyncio.create_task(reader.run(deliver))
        async with asyncio.timeout(20):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return received
