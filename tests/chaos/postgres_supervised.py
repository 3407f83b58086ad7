"""A supervisor whose only child is an embedded server, as a process for tests to disturb (FOLDER).

Prints the server's pid and the guard's whenever another server is ready, beside what the status
says of it, and how the run ended.
"""

import json
import sys
from pathlib import Path

from config.logging import configure
from engine.child import ServiceSpec
from engine.restarts import Backoff
from engine.rundir import RunDirectory
from engine.status import Status
from engine.supervisor import Supervisor
from engine.topology import Group, Topology
from tests.postgres_server import SmallServer, make_server


def main() -> None:
    configure("info", "text")
    folder = Path(sys.argv[1])
    with RunDirectory(base=folder) as run:
        server = make_server(folder, run_dir=run.path, overrides={}, options=SmallServer())
        service = ServiceSpec("postgres", server)
        group = Group("database", (service,), backoff=Backoff(0.05, 0.1))
        told = None

        def tell(status: Status) -> None:
            nonlocal told
            if server.ready and server.pid != told:
                told = server.pid
                child = status.child("postgres")
                print(
                    json.dumps(
                        {
                            "postmaster": told,
                            "guard": server.guard_pid,
                            "status": {"pid": child.pid, "memory": child.memory_bytes},
                        }
                    ),
                    flush=True,
                )

        outcome = Supervisor(Topology((group,)), run.path, on_tick=tell).run()
    end = {"code": outcome.exit_code, "message": outcome.message, "restarts": outcome.restarts}
    print(json.dumps(end), flush=True)


if __name__ == "__main__":
    main()
