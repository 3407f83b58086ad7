"""Hostile bytes through a relay into the whole program: each costs itself, and is counted."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, LiteralString

import psutil
import psycopg

from actors.atproto import cbor, cid
from actors.store.verify import verify
from bench.network_account import Write
from bench.relay_frames import write_capture
from bench.relay_process import relay_process
from tests.author import START, Author, ref
from tests.program import ROOT, Program, program

POST, LIKE, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"
THING: Final = "com.example.thing"
MILLION: Final = 1_000_000
ACTORS: Final = ("ingest", "shard-0", "shard-1", "user_gate", "monitor")
LONGEST_NAME: Final = "a" + ".b" * 126 + "." + "c" * 63
INFO: Final = cbor.encode({"op": 1, "t": "#info"}) + cbor.encode({"name": "x" * 1_000})
QUICK: Final = {
    "SKYSHARD_INGEST__RECONNECT_MIN_SECONDS": "0.02",
    "SKYSHARD_INGEST__RECONNECT_MAX_SECONDS": "0.1",
    "SKYSHARD_SOURCE__IDLE_SECONDS": "2",
}


class Stream:
    """A stream that is written frame by frame.

    `canaries` are good posts, to be found in the end; `drops` is what is to be counted.
    """

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.canaries = 0
        self.drops: Counter[str] = Counter()
        self._seq = 0
        self._authors = 0

    def author(self, did: str | None = None) -> Author:
        self._authors += 1
        return Author(self._authors, did)

    def add(self, author: Author, *writes: Write, seq: int | None = None, **over: Any) -> None:
        """A commit with these writes, and fields of its body changed."""
        self._seq += 1
        frame = author.commit(list(writes), seq or self._seq, START + self._seq * MILLION)
        if over:
            body = cbor.skip(frame, 0)
            frame = frame[:body] + cbor.encode({**cbor.decode(frame[body:]), **over})
        self.frames.append(frame)

    def canary(self, author: Author, **fields: Any) -> Write:
        """A good post, to stand beside something bad."""
        self.canaries += 1
        return author.put(f"{POST}/canary-{self.canaries}", text="canary", **fields)

    def good(self) -> None:
        author = self.author()
        self.add(author, self.canary(author))

    def dropped(self, reason: str, write: Write) -> Write:
        """This write, of which it is noted that it is to be dropped."""
        self.drops[reason] += 1
        return write


def thing(author: Author, key: str, **fields: Any) -> Write:
    return author.put(f"{THING}/{key}", **fields)


def arguments(url: str, database: str) -> tuple[str, ...]:
    where = ("--source", url, "--database-url", database, "--from-start", "--shards", "2")
    return ("--json", "--until-caught-up", *where)


def count(database: str, what: LiteralString) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()
    assert row is not None
    return int(row[0])


def watched(running: Program) -> tuple[dict[str, Any], int]:
    """The report, and the most memory that any process of ours was seen to have."""
    most = 0
    while running.child.poll() is None:
        for name, pid in running.processes().items():
            if name in ACTORS and psutil.pid_exists(pid):
                with suppress(psutil.NoSuchProcess):
                    most = max(most, psutil.Process(pid).memory_info().rss)
        time.sleep(0.1)
    return running.report(), most


def records(stream: Stream) -> None:
    """Records of every bad kind, and at every limit, beside a good one."""
    one = stream.author()
    deep: Any = 1
    for _ in range(31):
        deep = [deep]
    bad = stream.dropped
    stream.add(
        one,
        stream.canary(one),
        thing(one, "deep", list=deep),
        bad("too_deep", thing(one, "deeper", list=[deep])),
        thing(one, "items", list=[1] * 50_000),
        bad("too_many_items", thing(one, "more", list=[1] * 70_000)),
        thing(one, "bytes", list=[bytes((n % 250,)) for n in range(49_000)], pad=bytes(850_000)),
        thing(one, "key", **{"k" * 8192: 1}),
        bad("key_too_long", thing(one, "long-key", **{"k" * 8193: 1})),
        thing(one, "nul", **{"a\0": "\0", "$ty\0pe": "x", "ab": "a\0b"}),
        thing(one, "escapes", text="\\ud800\\u0000 \u202e \U0010ffff \ufeff"),
        thing(one, "edge", most=2**53 - 1, least=1 - 2**53),
        bad("integer_too_large", thing(one, "over", most=2**53)),
        bad("float", thing(one, "float", number=1.0)),
        thing(one, "r" * 512),
        one.put(f"{LONGEST_NAME}/a"),
        bad("not_a_map", Write("create", f"{THING}/list", cbor.encode([1]))),
        bad("invalid_utf8", Write("create", f"{THING}/utf8", b"\xa1\x65$type\x62\xed\xa0")),
        bad("bad_cbor", Write("create", f"{THING}/twice", b"\xa2\x61a\x01\x61a\x01")),
        bad("missing_type", Write("create", f"{THING}/typeless", cbor.encode({}))),
    )
    for moment in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "2023-06-30T23:59:60+23:59", ""):
        stream.add(one, stream.canary(one, createdAt=moment))


def keys(stream: Stream) -> None:
    """Keys that are too long alone, or together with another in one index."""
    noise = hashlib.shake_256(b"noise").hexdigest(950)
    long, longest = stream.author(f"did:web:{noise}"), stream.author("did:web:" + "a" * 2040)
    subject = f"at://did:x:{noise}/{POST}/a"
    bad = stream.dropped
    stream.add(
        long,
        stream.canary(long),
        bad("database_refused", long.put(f"{LIKE}/refused", subject=ref(subject))),
        bad("key_too_long", long.put(f"{LIKE}/long", subject=ref(subject + "a" * 100))),
    )
    stream.add(longest, bad("key_too_long", longest.put(f"{POST}/a", text="its uri is too long")))


def multiplied(stream: Stream) -> None:
    """Small frames that mean a great deal of work."""
    block = cbor.encode({"$type": THING, "text": "z" * 999_000})
    for _ in range(2):
        one = stream.author()
        named = [Write("create", f"{THING}/{number}", block) for number in range(199)]
        stream.add(one, stream.canary(one), *named)
        stream.drops["records_too_large"] += 197
    for start in range(0, 10_000, 200):
        fan = stream.author()
        follows = range(start, start + 200)
        stream.add(fan, *(fan.put(f"{FOLLOW}/{n}", subject=f"did:x:{n}") for n in follows))


def commits(stream: Stream) -> None:
    """Whole commits that cannot be used, and a very large one that can."""
    one = stream.author()
    unusable: Sequence[tuple[str, str, Any]] = (
        ("bad_time", "time", "yesterday"),
        ("rev_in_future", "time", "0001-01-01T00:00:00Z"),
        ("bad_did", "repo", "x" * 4_000_000),
        ("bad_did", "repo", "did:x:\0\n\x1b[31m"),
        ("too_many_items", "blobs", [cid.compute(b"%d" % n) for n in range(30_000)]),
        ("too_many_ops", "ops", [{"action": "create", "path": f"{THING}/a"}] * 201),
        ("blocks_too_large", "blocks", bytes(2_000_001)),
        ("bad_path", "ops", [{"action": "create", "path": f"{THING}/{'r' * 513}"}]),
    )
    for reason, field, value in unusable:
        stream.add(one, **{field: value})
        stream.drops[reason] += 1
    stream.add(one, stream.canary(one), filling=bytes(5 * MILLION), unknown={"a": [1]})


def noise(stream: Stream) -> None:
    """What is no event at all, what comes again, and what is too large to be received."""
    stream.good()
    stream.frames += stream.frames[-1:] * 1_000
    stream.good()
    stream.frames += [b"", b"\0", b"\xff", *(b"garbage %d" % number for number in range(2_000))]
    stream.drops += Counter({"bad_cbor": 2, "bad_frame": 2_001})
    stream.good()
    stream.frames += [INFO] * 2_000
    for op in (0, 1, 7):
        stream.frames.append(cbor.encode({"op": op, "t": "#future"}) + cbor.encode({"a": 1}))
    one = stream.author()
    for _ in range(2):
        stream.add(one, filling=bytes(6 * MILLION))
        stream.drops["unreceivable"] += 1
    stream.good()
    stream.add(one, stream.canary(one), seq=2**52)
    for _ in range(3):
        stream.add(one, one.put(f"{POST}/late", text="its number is lower"))
        stream.drops["out_of_order"] += 1


def test_each_hostile_frame_costs_itself_and_is_counted(database: str, tmp_path: Path) -> None:
    stream = Stream()
    stream.good()
    for kind in (records, keys, multiplied, commits, noise):
        kind(stream)
    capture = tmp_path / "hostile.frames"
    write_capture(capture, stream.frames)
    with (
        relay_process(capture) as relay,
        program(tmp_path, *arguments(relay.url, database), environment=QUICK) as running,
    ):
        report, memory = watched(running)
    assert report["drops"] == dict(sorted(stream.drops.items()))
    assert not any(report["restarts"].values())
    assert count(database, "posts WHERE text = 'canary'") == stream.canaries
    assert count(database, "follows") == 10_000
    assert count(database, "engine_dead_letters") == 0
    assert verify(database) == []
    assert memory < 300 * MILLION
    assert running.log_path.stat().st_size < 100_000


# Ends every process that decodes a frame with this text in it.
POISON: Final = """
import os
import signal

from actors.decoder import Batch

add = Batch.add


def poisoned(batch, frame, host=""):
    if b"it kills" in frame:
        os.kill(os.getpid(), signal.SIGKILL)
    add(batch, frame, host)


Batch.add = poisoned
"""


def test_a_frame_that_kills_its_shard_is_put_aside_and_counted(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(POISON)
    stream = Stream()
    for _ in range(10):
        stream.good()
    one = stream.author()
    stream.add(one, stream.canary(one))
    stream.add(one, one.put(f"{POST}/poison", text="it kills"))
    stream.add(one, stream.canary(one))
    for _ in range(10):
        stream.good()
    capture = tmp_path / "poison.frames"
    write_capture(capture, stream.frames)
    environment = QUICK | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    with (
        relay_process(capture) as relay,
        program(tmp_path, *arguments(relay.url, database), environment=environment) as running,
    ):
        report = running.report()
    assert report["drops"] == {"dead_letter": 1}
    assert count(database, "engine_dead_letters") == 1
    assert sum(report["restarts"].values()) >= 5
    assert count(database, "posts WHERE text = 'canary'") == stream.canaries
    assert report["checkpoint"] == len(stream.frames)
    assert report["discontinuous"] == 1
    assert verify(database) == []
