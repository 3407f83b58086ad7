"""What each setting of `verify` costs: decoding alone, with signatures, with trees too.

Frames of a made network are decoded in rounds, each mode in each round, so that all meet the same
machine. Prints one JSON line: microseconds of processor time per event, medians and extremes, and
the ratio to "structure".

    python -m bench.verification
"""

import json
import statistics
import time
from typing import Any, Final

import click

from actors.decoder import Batch
from actors.verification import Verification
from bench.network import Network

MODES: Final = {
    "structure": {"signatures": False, "trees": False},
    "signatures": {"signatures": True, "trees": False},
    "full": {"signatures": True, "trees": True},
}
FRAMES_IN_A_BATCH: Final = 500


def _keys(network: Network) -> dict[str, str]:
    return {
        did: document["verificationMethod"][0]["publicKeyMultibase"]
        for did, document in network.documents()
    }


def _round(frames: list[bytes], keys: dict[str, str], mode: dict[str, bool]) -> float:
    """Microseconds of processor time per event."""
    verification = Verification()
    began = time.process_time()
    for start in range(0, len(frames), FRAMES_IN_A_BATCH):
        batch = Batch(signatures=mode["signatures"], trees=mode["trees"])
        for frame in frames[start : start + FRAMES_IN_A_BATCH]:
            batch.add(frame)
        if mode["signatures"]:
            found = verification.sort(
                batch.changes,
                lambda dids: {did: keys[did] for did in dids if did in keys},
                lambda _dids: {},
            )
            # Events about an identity come as they do, and what follows them waits.
            assert "wrong_key" not in found.reasons.values(), (
                "a commit that its author did not sign"
            )
    return (time.process_time() - began) / len(frames) * 1e6


@click.command()
@click.option("--events", default=20_000, show_default=True, help="Events of a made network.")
@click.option("--rounds", default=5, show_default=True)
def main(events: int, rounds: int) -> None:
    """Measure what verifying costs."""
    network = Network(seed=3)
    frames = list(network.events(events))
    keys = _keys(network)
    times: dict[str, list[float]] = {name: [] for name in MODES}
    for _ in range(rounds):
        for name, mode in MODES.items():
            times[name].append(_round(frames, keys, mode))
    base = statistics.median(times["structure"])
    result: dict[str, Any] = {"bench": "verification", "events": len(frames), "rounds": rounds}
    for name, values in times.items():
        median = statistics.median(values)
        result[name] = {
            "us": round(median, 1),
            "least": round(min(values), 1),
            "most": round(max(values), 1),
            "ratio": round(median / base, 2),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
