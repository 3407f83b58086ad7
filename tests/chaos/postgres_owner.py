"""A process that owns an embedded server, for tests that kill it (FOLDER [PROGRAMS]).

Prints what it waits for, then one line of JSON with the pids, and then sleeps.
"""

import json
import signal
import sys
import time
from pathlib import Path

from actors.store.binaries import Binaries, from_package, from_path
from tests.postgres_server import make_server


def find() -> Binaries:
    found = from_path(sys.argv[2]) if len(sys.argv) > 2 else from_package()
    assert found is not None
    return found


def main() -> None:
    # Durable settings: these tests are about what survives.
    server = make_server(Path(sys.argv[1]), overrides={}, find=find)
    server.start()
    told = ""
    while (state := server.poll_ready()) is not True:
        if state != told:
            told = str(state)
            print(told, flush=True)
        time.sleep(0.01)
    pids = {"postmaster": server.pid, "guard": server.guard_pid}
    print(json.dumps(pids), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
