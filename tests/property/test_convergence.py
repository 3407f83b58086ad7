"""An index that begins in the middle comes to hold the whole, whatever is fetched first."""

import random

import pytest

from actors.store.verify import verify
from bench.network import Network
from tests.convergence import Expectation, History, decoded
from tests.histories import Sent
from tests.servers.pds import Pds
from tests.settling import Engine
from tests.tables import read_tables
from tests.writing import make_index

EVENTS = 500
CHUNK = 50


def sent(frames: list[bytes]) -> list[Sent]:
    """Frames with their authors."""
    return [Sent(getattr(decoded(frame), "did", ""), frame) for frame in frames]


class World:
    """A network with a server of all its accounts, and an index that fetches from it by chance."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        network = Network(seed, 24, statuses=0.012, changes=0.15)
        # All users come in the first part.
        self.parts = [list(network.events(EVENTS)) for _ in range(3)]
        self.pds = Pds()
        self.pds.feed(*self.parts[0])
        self.history = History(self.parts[0])

    def tell(self, part: list[bytes]) -> None:
        """Something happens; its servers know it at once, and the index hears of it bit by bit."""
        self.pds.feed(*part)
        missing = [did for did, each in self.pds.repositories.items() if each.head]
        self.chance.shuffle(missing)
        stream = sent(part)
        for start in range(0, len(stream), CHUNK):
            self.engine.deliver(stream[start : start + CHUNK])
            for did in missing[: self.chance.randrange(4)]:
                missing.remove(did)
                self._fetch(did)
        # As the fetcher does: all that was seen, and again what is out of step by then.
        for did in missing:
            self._fetch(did)
        self.engine.settle()
        for (did,), row in read_tables(self.engine.conninfo)["engine_repos"].items():
            if row["out_of_step"]:
                self._fetch(did)
        self.engine.settle()
        self.history.goes_on(part)

    def _fetch(self, did: str) -> None:
        repository = self.pds.repositories[did]
        if repository.status is None:
            self.engine.fetch(repository)


@pytest.mark.parametrize("seed", range(2))
def test_an_index_that_began_in_the_middle_equals_that_of_the_whole_and_stays_so(
    database: str, seed: int
) -> None:
    make_index(database)
    with Engine(database, shards=2, seed=seed) as engine:
        world = World(engine, seed)
        for part in world.parts[1:]:
            world.tell(part)
            expected = Expectation(world.history)
            assert expected.differences(read_tables(database)) == []
            assert not verify(database)
