"""The loopback relay: cursors, pace, and every fault it promises, over real sockets."""

import asyncio
import contextlib
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import libipld
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.protocol import State

from bench.relay import Relay
from bench.relay_faults import Fault
from bench.relay_frames import FrameStore, seq_of, write_capture
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from bench.relay_subscriber import PATH

PATIENCE: Final = 120.0
ROOT: Final = Path(__file__).parents[2]


def frame(seq: int, size: int = 40) -> bytes:
    header = libipld.encode_dag_cbor({"op": 1, "t": "#identity"})
    body = {"seq": seq, "did": "did:plc:x", "fill": "x" * size}
    return header + libipld.encode_dag_cbor(body)


# Sequence numbers with holes, as the real ones have.
FRAMES: Final = [frame(seq) for seq in range(10, 1010, 10)]


def client(url: str, cursor: int | None = None) -> connect:
    query = "" if cursor is None else f"?cursor={cursor}"
    # A client with a bounded queue stops reading, and then waits long for the answer to its close.
    return connect(
        url + PATH + query, compression=None, max_size=8 << 20, max_queue=None, proxy=None
    )


async def take(connection: ClientConnection, count: int) -> list[int | None]:
    async with asyncio.timeout(PATIENCE):
        return [_seq(await connection.recv()) for _ in range(count)]


def _seq(message: str | bytes) -> int | None:
    return seq_of(message) if isinstance(message, bytes) else None


async def until_it_ends(connection: ClientConnection) -> tuple[list[int | None], ConnectionClosed]:
    seqs = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                seqs.append(_seq(await connection.recv()))
            except ConnectionClosed as error:
                return seqs, error


async def silent(connection: ClientConnection) -> bool:
    """Nothing comes although the relay answers pings, so nothing was on its way."""
    await asyncio.wait_for(await connection.ping(), PATIENCE)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(connection.recv(), 0.05)
        return False
    return True


def relay(**options: object) -> Relay:
    return Relay(FrameStore.of_frames(FRAMES), msgspec.convert(options, RelayOptions))


def fault(kind: str, times: int = 1) -> Fault:
    return msgspec.convert({"kind": kind, "at": 40, "times": times}, Fault)


@pytest.mark.parametrize(
    ("inclusive", "cursor", "first"),
    [(True, 500, 500), (False, 500, 510), (True, 501, 510), (False, 501, 510), (True, 0, 10)],
)
def test_a_cursor_replays_from_there_as_the_two_kinds_of_relays_do(
    inclusive: bool, cursor: int, first: int
) -> None:
    async def scenario() -> None:
        async with relay(inclusive=inclusive) as server, client(server.url, cursor) as connection:
            count = (1000 - first) // 10 + 1
            assert await take(connection, count) == list(range(first, 1010, 10))
            assert await silent(connection)
            assert server.counters.cursors == [cursor]
            assert server.counters.frames == count

    asyncio.run(scenario())


def test_without_a_cursor_only_what_happens_from_now_on_comes() -> None:
    async def scenario() -> None:
        async with relay(held=90) as server, client(server.url) as connection:
            assert await take(connection, 10) == list(range(910, 1010, 10))
            async with client(server.url) as late:
                assert await silent(late)
                await server.publish([frame(2000)])
                assert await take(late, 1) == [2000]
            assert await take(connection, 1) == [2000]

    asyncio.run(scenario())


def test_a_cursor_older_than_the_oldest_held_starts_there_and_is_told_when_asked() -> None:
    async def scenario() -> None:
        async with relay(oldest=50) as server, client(server.url, 10) as connection:
            assert await take(connection, 1) == [510]
        async with (
            relay(oldest=50, outdated_info=True) as server,
            client(server.url, 10) as connection,
        ):
            info = await connection.recv()
            assert isinstance(info, bytes)
            assert libipld.decode_dag_cbor_multi(info)[1]["name"] == "OutdatedCursor"
            assert await take(connection, 1) == [510]

    asyncio.run(scenario())


def test_a_future_cursor_is_live_or_an_error_that_ends_the_connection() -> None:
    async def scenario() -> None:
        async with relay() as server, client(server.url, 99999) as connection:
            assert await silent(connection)
        async with relay(future_error=True) as server, client(server.url, 1001) as connection:
            error = await connection.recv()
            assert isinstance(error, bytes)
            header, body = libipld.decode_dag_cbor_multi(error)
            assert (header["op"], body["error"]) == (-1, "FutureCursor")
            _, end = await until_it_ends(connection)
            assert end.rcvd is not None

    asyncio.run(scenario())


def test_events_happen_at_the_rate_and_a_replay_keeps_its_own() -> None:
    async def scenario() -> None:
        for quick in ({"held": 0, "rate": 2000.0}, {"replay_rate": 2000.0}):
            async with relay(**quick) as server, client(server.url, 0) as connection:
                assert await take(connection, 100) == list(range(10, 1010, 10))
        async with relay(held=2, rate=0.001) as server, client(server.url, 0) as connection:
            assert await take(connection, 2) == [10, 20]
            assert await silent(connection), "an event came before its time"
        async with relay(replay_rate=0.001) as server, client(server.url, 0) as connection:
            assert await take(connection, 1) == [10]
            assert await silent(connection), "an event came before its time"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["close", "reset", "mid_frame"])
def test_a_disconnect_fires_once_and_the_next_connection_gets_past_it(kind: str) -> None:
    async def scenario() -> None:
        async with relay(faults=(fault(kind),)) as server:
            async with client(server.url, 0) as connection:
                seqs, error = await until_it_ends(connection)
            assert seqs == list(range(10, 10 + 10 * len(seqs), 10))
            # A reset may overtake what was sent before it; the others may not.
            assert len(seqs) == 40 or (kind == "reset" and len(seqs) < 40)
            assert isinstance(error, ConnectionClosedError) is (kind != "close")
            assert server.counters.fired == {kind: 1}
            async with client(server.url, 410) as connection:
                assert await take(connection, 60) == list(range(410, 1010, 10))
            assert server.counters.connections == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["broken_cbor", "text", "unknown_t", "unknown_op", "oversized"])
def test_garbage_comes_as_often_as_asked_and_costs_no_frame(kind: str) -> None:
    async def scenario() -> None:
        faults = (fault(kind, times=2),)
        async with relay(faults=faults) as server, client(server.url, 0) as connection:
            seqs = await take(connection, 102)
            assert seqs[40:42] == [None, None]
            assert seqs[:40] + seqs[42:] == list(range(10, 1010, 10))
            assert server.counters.fired == {kind: 2}

    asyncio.run(scenario())


def test_an_oversized_frame_ends_a_client_that_has_a_limit() -> None:
    async def scenario() -> None:
        faults = (Fault("oversized", at=1, size=100_000),)
        async with (
            relay(faults=faults) as server,
            connect(server.url + PATH + "?cursor=0", max_size=50_000, proxy=None) as connection,
        ):
            seqs, end = await until_it_ends(connection)
            assert (seqs, end.sent is not None and end.sent.code) == ([10], 1009)

    asyncio.run(scenario())


def test_a_stall_is_silence_on_an_open_connection() -> None:
    async def scenario() -> None:
        async with relay(faults=(Fault("stall", at=40),)) as server:
            async with client(server.url, 0) as connection:
                await take(connection, 40)
                assert await silent(connection)
                assert connection.state is State.OPEN
            async with client(server.url, 410) as connection:
                await take(connection, 60)
            assert server.counters.fired == {"stall": 1}

    asyncio.run(scenario())


def test_a_relay_that_is_away_refuses_and_comes_back_on_its_port() -> None:
    async def scenario() -> None:
        async with relay(faults=(Fault("refuse", at=40, seconds=0.2),)) as server:
            async with client(server.url, 0) as connection:
                await until_it_ends(connection)
            with pytest.raises(ConnectionRefusedError):
                async with client(server.url, 0):
                    pass
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        async with client(server.url, 0) as connection:
                            await take(connection, 100)
                            break
                    except ConnectionRefusedError:
                        await asyncio.sleep(0.02)

    asyncio.run(scenario())


def test_the_first_handshakes_can_be_refused_and_others_paths_always_are() -> None:
    async def scenario() -> None:
        async with relay(refuse_first=1, slow_start=0.01) as server:
            for url, status in ((server.url + PATH, 503), (server.url + "/other", 404)):
                with pytest.raises(InvalidStatus) as caught:
                    async with connect(url, proxy=None):
                        pass
                assert caught.value.response.status_code == status
            async with client(server.url, 0) as connection:
                await take(connection, 100)
            assert server.counters.refused == 1

    asyncio.run(scenario())


def test_a_client_that_does_not_read_slows_the_relay() -> None:
    async def scenario() -> None:
        frames = [frame(seq, 50_000) for seq in range(1, 1001)]
        server = Relay(FrameStore.of_frames(frames), RelayOptions(send_buffer=65536))
        async with (
            server,
            connect(
                server.url + PATH + "?cursor=0", compression=None, max_queue=1, proxy=None
            ) as connection,
        ):
            before = -1
            async with asyncio.timeout(PATIENCE):
                while server.counters.frames != before:
                    before = server.counters.frames
                    await asyncio.sleep(0.1)
            assert server.counters.frames < 1000
            assert await take(connection, 1000) == list(range(1, 1001))

    asyncio.run(scenario())


def test_clients_have_each_their_own_place_in_the_stream() -> None:
    async def scenario() -> None:
        async with (
            relay() as server,
            client(server.url, 0) as one,
            client(server.url, 500) as two,
        ):
            assert await take(one, 3) == [10, 20, 30]
            assert await take(two, 3) == [500, 510, 520]
            assert server.counters.open == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["some.frames", "some.frames.gz"])
def test_a_capture_is_served_from_a_process_of_its_own(tmp_path: Path, name: str) -> None:
    capture = tmp_path / name
    assert write_capture(capture, FRAMES) == len(FRAMES)
    options = RelayOptions(faults=(Fault("unknown_t", at=3),))

    async def scenario(url: str) -> None:
        async with client(url, 0) as connection:
            assert await take(connection, 4) == [10, 20, 30, None]

    with relay_process(capture, options) as process:
        asyncio.run(scenario(process.url))
        assert process.publish([frame(5000)]).fired == {"unknown_t": 1}
        process.refuse()
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(scenario(process.url))
        process.listen()
        process.disconnect()
        assert process.counters().cursors == [0]


def test_a_capture_that_ends_within_a_frame_is_refused(tmp_path: Path) -> None:
    capture = tmp_path / "torn.frames"
    write_capture(capture, FRAMES)
    capture.write_bytes(capture.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends within the frame"):
        FrameStore.of_capture(capture)


def test_an_empty_capture_is_an_empty_stream(tmp_path: Path) -> None:
    for name in ("none.frames", "none.frames.gz"):
        write_capture(tmp_path / name, [])
        assert len(FrameStore.of_capture(tmp_path / name)) == 0


def test_on_the_command_line_a_relay_without_a_file_says_that_its_stream_is_empty() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.relay"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as relay:
        assert relay.stdout is not None
        assert relay.stderr is not None
        try:
            assert relay.stderr.readline() == "relay: no file, so the stream is empty\n"
            assert relay.stdout.readline().startswith("ws://127.0.0.1:")
        finally:
            relay.kill()


def test_the_example_of_the_page_is_one() -> None:
    page = (ROOT / "bench/README.md").read_text()
    command = page[page.index("\n.venv/bin/python -m bench.relay bench") :]
    words = shlex.split(command[: command.index("run.py")])
    options = msgspec.json.decode(words[words.index("--options") + 1], type=RelayOptions)
    assert options.replay_rate == 500
    assert [fault.kind for fault in options.faults] == ["reset", "broken_cbor"]
