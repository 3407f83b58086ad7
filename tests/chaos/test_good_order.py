"""Whether the next start knows how the run before it ended."""

import os
import signal
from pathlib import Path

from actors.capture import DEMO
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from tests.program import program, wait_until

SAYS = "the run before did not end in good order"


def test_only_a_run_that_was_killed_is_called_a_crash_at_the_next_start(
    database: str, tmp_path: Path
) -> None:
    with relay_process(DEMO, RelayOptions(replay_rate=2000)) as relay:
        arguments = ("--json", "--shards", "2", "--source", relay.url, "--database-url", database)
        begun = relay.counters().frames
        with program(tmp_path, *arguments, "--from-start", name="signalled") as running:
            wait_until(lambda: relay.counters().frames > begun, "the stream to begin", running)
            running.child.send_signal(signal.SIGTERM)
            assert running.wait() == 0, running.tail()
            assert not running.said(SAYS)
        with program(tmp_path, *arguments, "--until-caught-up", name="finished") as running:
            running.report()
            assert not running.said(SAYS)
        begun = relay.counters().frames
        with program(tmp_path, *arguments, "--from-start", name="killed") as running:
            wait_until(lambda: relay.counters().frames > begun, "the stream to begin", running)
            assert not running.said(SAYS)
            os.kill(running.child.pid, signal.SIGKILL)
            running.wait()
        with program(tmp_path, *arguments, "--until-caught-up", name="next") as running:
            running.report()
            assert running.said(SAYS)
