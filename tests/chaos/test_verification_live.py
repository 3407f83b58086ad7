"""The program with `verify.mode` on: forged commits among good ones, a directory that is down, keys
that change, shards that die. What was signed is there, in its order; what was not is counted.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from coincurve import PrivateKey

from actors.atproto import frames
from actors.decoder import Batch
from bench.network import Network
from bench.network_account import did_of, document, key_of
from bench.relay_process import relay_process
from tests import forging, settling, tables
from tests.program import program, wait_until
from tests.reference import Reference
from tests.servers import faults
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.servers.loopback import free_port

SEED = 3
EVENTS = 500
USERS = 12
FORGER = key_of(SEED, 10_000)
# One says that its key changed, the other does not.
TELLS, SILENT = 0, 1
NEW_KEYS = {index: key_of(SEED, 1_000 + index) for index in (TELLS, SILENT)}
SETTINGS = {
    "SKYSHARD_RESOLVER__ENABLED": "true",
    "SKYSHARD_RESOLVER__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_RESOLVER__ERROR_SECONDS": "1",
    "SKYSHARD_RESOLVER__ERROR_MAX_SECONDS": "1",
    "SKYSHARD_NETWORK__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_NETWORK__ALLOW_PRIVATE_HOSTS": "true",
    "SKYSHARD_NETWORK__TRIES": "1",
    "SKYSHARD_NETWORK__BREAKER_MIN_SECONDS": "1",
    "SKYSHARD_NETWORK__BREAKER_MAX_SECONDS": "1",
    "SKYSHARD_SUPERVISOR__INTENSITY": "100",
    "SKYSHARD_SHARD__BATCH_COMMITS": "50",
    "SKYSHARD_INGEST__BATCH_FRAMES": "16",
}
POINTS = ("shard.parking@shard-0:1", "shard.draining@shard-1:2", "shard.drained@shard-0:2")
BUFFERED = "SELECT count(*) FROM engine_resync_buffer"
PARKED = "SELECT count(*) FROM engine_parked"
# Less than the time after which a source that is silent has told everything.
PAUSE_SECONDS = 0.3


class World:
    """What is said in the network, before and after two of its accounts take another key.

    `reference` knows what the index must hold by then, `forged` counts what is to be dropped, by
    reason, and `waiting` what of the first half waits while no key is known.
    """

    def __init__(self, mode: str) -> None:
        self.reference = Reference()
        self.forged: Counter[str] = Counter()
        self.waiting = 0
        self._trees = mode == "full"
        self._seq = 0
        self._turns = 0
        self._keys: dict[str, PrivateKey] = {}
        self._changed: set[str] = set()
        network = Network(SEED, USERS, statuses=0.0)
        self._made = list(network.events(EVENTS))
        self.documents = dict(network.documents())

    def first_half(self) -> list[bytes]:
        """What is said with the first keys."""
        return [frame for each in self._made[: EVENTS // 2] for frame in self._said(each)]

    def pause(self) -> bytes:
        """Something that says nothing new, so that the stream does not end."""
        return self._good(frames.encode("#account", {**self._told(), "active": True}))

    def second_half(self) -> list[bytes]:
        """What is said with the second keys."""
        self._keys = {did_of(SEED, index): key for index, key in NEW_KEYS.items()}
        self._change_documents()
        told = self._good(frames.encode("#identity", self._told()))
        return [told, *(frame for each in self._made[EVENTS // 2 :] for frame in self._said(each))]

    def _told(self) -> dict[str, Any]:
        _name, last = forging.opened(self._made[EVENTS // 2])
        return {"seq": 0, "did": did_of(SEED, TELLS), "time": last["time"]}

    def _change_documents(self) -> None:
        for did, key in self._keys.items():
            handle = self.documents[did]["alsoKnownAs"][0].removeprefix("at://")
            self.documents[did] = document(did, handle, key)

    def _said(self, frame: bytes) -> Iterator[bytes]:
        """An event, and before it now and then a forged one in its place."""
        name, body = forging.opened(frame)
        if name not in ("#commit", "#sync"):
            yield self._good(frame)
            return
        did = body["repo"] if name == "#commit" else body["did"]
        good = forging.signed_by(frame, self._keys[did]) if did in self._keys else frame
        if name == "#commit" and body["ops"]:
            yield from self._forged(did, frame, good)
        self._changed |= {did} & self._keys.keys()
        self.waiting += not self._keys
        yield self._good(good)

    def _forged(self, did: str, frame: bytes, good: bytes) -> Iterator[bytes]:
        self._turns += 1
        turn = self._turns % 9
        if did in self._changed and turn % 2:
            # Signed by the key that was right before.
            yield self._bad(frame, "bad_signature")
        elif turn == 0:
            yield self._bad(forging.signed_by(good, FORGER), "bad_signature")
        elif turn == 3:
            yield self._bad(forging.signed_high(good), "bad_signature")
        elif turn in (4, 7) and self._trees:
            forge = forging.after_another_tree if turn == 4 else forging.with_another_record
            yield self._bad(forged := forge(good), reason_of(forged))

    def _good(self, frame: bytes) -> bytes:
        self._seq += 1
        numbered = forging.numbered(frame, self._seq)
        self.reference.frame(numbered)
        return numbered

    def _bad(self, frame: bytes, reason: str) -> bytes:
        self._seq += 1
        self.forged[reason] += 1
        self.waiting += not self._keys and reason == "bad_signature"
        return forging.numbered(frame, self._seq)


def reason_of(frame: bytes) -> str:
    """Why a commit is dropped whose operations are not what happened to its tree."""
    batch = Batch(trees=True)
    batch.add(frame)
    (drop,) = batch.drops
    assert drop.reason in ("tree_mismatch", "mst_block_missing"), drop
    return drop.reason


def count(connection: psycopg.Connection[Any], sql: str) -> int:
    """What a query counts; -1 while there are no tables."""
    try:
        row = connection.execute(sql.encode()).fetchone()
    except psycopg.errors.UndefinedTable:
        return -1
    assert row is not None
    return int(row[0])


def told_drops(port: int) -> Counter[str]:
    """The drops that /metrics tells of, by reason."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        match = re.fullmatch(r'skyshard_drops_total\{.*reason="(\w+)".*\} ([0-9.]+)', line)
        if match:
            found[match[1]] += int(float(match[2]))
    return found


@pytest.mark.parametrize(("mode", "points"), [("full", ()), ("signatures", POINTS)])
def test_what_was_signed_is_indexed_in_order_and_what_was_not_is_counted(
    database: str, tmp_path: Path, mode: str, points: tuple[str, ...]
) -> None:
    world = World(mode)
    first = world.first_half()
    records = tmp_path / "crashes"
    records.mkdir()
    port = free_port()
    with (
        PlcDirectory(world.documents.items()) as plc,
        DnsServer() as dns,
        relay_process() as relay,
        psycopg.connect(database, autocommit=True) as connection,
        program(
            *(tmp_path, "--source", relay.url, "--from-start", "--until-caught-up", "--json"),
            *("--database-url", database, "--shards", "2"),
            environment={
                **SETTINGS,
                "SKYSHARD_VERIFY__MODE": mode,
                "SKYSHARD_MONITOR__PORT": str(port),
                "SKYSHARD_NETWORK__PLC_URL": plc.url,
                "SKYSHARD_NETWORK__NAMESERVERS": dns.nameserver,
                "SKYSHARD_CRASH_POINTS": ",".join(points),
                "SKYSHARD_CRASH_DIR": str(records),
            },
        ) as running,
    ):

        def until(condition: Callable[[], bool], what: str) -> None:
            paused = time.monotonic()

            def met() -> bool:
                nonlocal paused
                if time.monotonic() > paused + PAUSE_SECONDS:
                    paused = time.monotonic()
                    relay.publish([world.pause()])
                return condition()

            wait_until(met, what, running)

        down = plc.fail(faults.status(503))
        relay.publish(first)
        running.pid_of("ingest")
        until(lambda: count(connection, BUFFERED) == world.waiting, "all that is signed to wait")
        assert count(connection, "SELECT count(*) FROM engine_repos") == 0
        until(lambda: down.fired > 0, "the directory to be asked")
        plc.heal()
        until(lambda: count(connection, PARKED) == 0, "the first half")
        asked = plc.asked()
        second = world.second_half()
        plc.documents.update(world.documents)
        relay.publish(second)
        if not points:
            until(lambda: told_drops(port) == world.forged, "the drops to be told of")
        report = running.report()
        kept = Counter(
            reason for (reason,) in connection.execute("SELECT reason FROM engine_drops")
        )
    assert min(world.forged.values()) > 10
    assert not world.reference.drops
    assert {name.name for name in records.iterdir()} == {
        f"fired.{point.replace(':', '.')}" for point in points
    }
    assert report["drops"] == kept == world.forged
    expected = settling.sure(world.reference.tables(), world.reference)
    ours = settling.sure(tables.read_tables(database), world.reference)
    assert tables.differences(expected, ours) == []
    for index in NEW_KEYS:
        path = f"/{did_of(SEED, index)}"
        assert plc.asked()[path] > asked[path], "it was looked at again"
