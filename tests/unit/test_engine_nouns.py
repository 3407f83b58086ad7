"""The small nouns: addresses, messages, shards, crash points, timers, the watermark."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from engine.address import identity, member, parse_identity
from engine.crashpoint import CrashPoints, directory, parse
from engine.errors import UnknownMessage
from engine.message import Codec, Message
from engine.sharding import shard_of, stable_hash
from engine.timer import Timers
from engine.watermark import Watermark

GOLDEN = {
    "did:plc:z72i7hdynmk6r22z27h6tvur": 9203776399038996502,
    "did:plc:ewvi7nxzyoun6zhxrhs64oiz": 16729925721023928850,
    "did:web:example.com": 9929588616200986083,
    "": 16476032584258269876,
}


class Text(Message, frozen=True):
    text: str


class Raw(Message, frozen=True):
    frames: tuple[bytes, ...]


def test_a_routing_id_holds_the_generation_and_reads_back() -> None:
    assert member("shard", 3) == "shard-3"
    assert parse_identity(identity("shard-3", 12)) == ("shard-3", 12)
    for wrong in (b"shard-3", b"#3", b"a#b"):
        with pytest.raises(ValueError, match="routing id"):
            parse_identity(wrong)


def test_messages_pass_the_codec_with_their_type_and_raw_bytes() -> None:
    codec = Codec((Text, Raw))
    for message in (Text("a"), Raw((b"\x00\xff", b""))):
        assert codec.decode(codec.encode(message)) == message
    assert Text("a").split() == (Text("a"),)


def test_what_is_no_message_of_the_topology_is_an_error_on_either_side() -> None:
    codec = Codec((Text,))
    with pytest.raises(UnknownMessage):
        codec.encode(Raw(()))
    for wrong in (b"", b"\xc1", Codec((Raw,)).encode(Raw(())), b"\x81\xa4type\xa4Text"):
        with pytest.raises(UnknownMessage):
            codec.decode(wrong)


def test_two_types_of_one_name_are_refused() -> None:
    other = type("Text", (Message,), {}, frozen=True)
    with pytest.raises(ValueError, match="Text"):
        Codec((Text, other))


def test_the_stable_hash_is_frozen() -> None:
    assert {did: stable_hash(did) for did in GOLDEN} == GOLDEN


def test_the_stable_hash_is_the_same_in_another_process() -> None:
    code = "from engine.sharding import stable_hash; print(stable_hash('did:web:example.com'))"
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert int(out) == GOLDEN["did:web:example.com"]


def test_shards_share_the_dids_evenly_and_take_any_text() -> None:
    counts = [0] * 4
    for number in range(8000):
        counts[shard_of(f"did:plc:{number}", 4)] += 1
    assert min(counts) > 1800
    assert shard_of("\ud800", 4) in range(4)
    with pytest.raises(ValueError, match="at least one"):
        shard_of("did:web:example.com", 0)


def test_a_crash_point_fires_at_its_pass_in_its_actor_and_once_over_all_generations(
    tmp_path: Path,
) -> None:
    fired: list[int] = []

    def points(actor: str) -> CrashPoints:
        return CrashPoints("a.b@shard-0:2, c@x:1", actor, tmp_path, lambda: fired.append(1))

    other = points("shard-1")
    for _ in range(3):
        other.reach("a.b")
    assert fired == []
    first = points("shard-0")
    first.reach("a.b")
    first.reach("other")
    assert fired == []
    first.reach("a.b")
    assert fired == [1]
    second = points("shard-0")
    for _ in range(3):
        second.reach("a.b")
    assert fired == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["fired.a.b@shard-0.2"]


def test_a_wrong_crash_point_is_refused() -> None:
    assert parse("") == ()
    for wrong in ("a", "a@b", "a@b:0", "@b:1", "a@b:x", "a/b@c:1"):
        with pytest.raises(ValueError, match="crash point"):
            parse(wrong)


def test_firings_are_recorded_in_the_run_directory_unless_told_otherwise(tmp_path: Path) -> None:
    assert directory(tmp_path, {}) == tmp_path
    assert directory(tmp_path, {"SKYSHARD_CRASH_DIR": "/x"}) == Path("/x")


def test_timers_are_due_in_order_and_a_cancelled_one_is_not() -> None:
    timers = Timers()
    seen: list[str] = []
    timers.add(2.0, lambda: seen.append("b"))
    timers.add(1.0, lambda: seen.append("a"))
    timers.add(2.0, lambda: seen.append("c"))
    gone = timers.add(0.5, lambda: seen.append("gone"))
    gone.cancel()
    assert timers.next_at() == 1.0
    for timer in timers.due(2.0):
        timer.fire()
    assert seen == ["a", "b", "c"]
    assert timers.next_at() is None


def test_the_watermark_never_passes_what_is_under_way() -> None:
    chance = random.Random(1)
    for _ in range(200):
        watermark = Watermark(100)
        under_way: list[int] = []
        position, last = 100, 100
        for _ in range(60):
            if under_way and chance.random() < 0.5:
                chance.shuffle(under_way)
                count = chance.randint(1, len(under_way))
                watermark.finish(under_way[:count])
                del under_way[:count]
            elif chance.random() < 0.5:
                position += chance.randint(1, 5)
                watermark.pass_over(position)
            else:
                position += chance.randint(1, 5)
                watermark.begin(position)
                under_way.append(position)
            value = watermark.value
            assert value >= last
            assert value == position if not under_way else value < min(under_way)
            assert watermark.under_way == len(under_way)
            last = value


def test_the_watermark_refuses_to_go_back_and_to_finish_twice() -> None:
    watermark = Watermark(5)
    assert watermark.value == 5
    with pytest.raises(ValueError, match="ascend"):
        watermark.begin(5)
    watermark.begin_all((6, 7))
    watermark.finish([7])
    assert watermark.value == 5
    with pytest.raises(ValueError, match="twice"):
        watermark.finish([7])
    with pytest.raises(ValueError, match="never"):
        watermark.finish([8, 9])
