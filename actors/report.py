"""The report of a run that has caught up: one JSON object, and the same for people."""

from collections.abc import Mapping
from typing import Any, Final

from config.units import show_duration

_FIRST: Final = ("events", "commits", "ops", "drops", "restarts", "checkpoint")


def complete(report: Mapping[str, Any], restarts: Mapping[str, int]) -> dict[str, Any]:
    """The report of ingest with what only the supervisor knows, the known keys first."""
    filled = {**report, "restarts": dict(restarts)}
    return {key: filled[key] for key in dict.fromkeys((*_FIRST, *filled)) if key in filled}


def show(report: Mapping[str, Any]) -> str:
    """A few aligned lines for people."""
    lines = []
    for key, value in report.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping):
            inner = sorted(value.items(), key=lambda item: (-_number(item[1]), item[0]))
            lines += [f"{name:<18} {'none' if not inner else ''}".rstrip()]
            lines += [f"  {inner_name:<36} {inner_value:>10}" for inner_name, inner_value in inner]
        elif key == "seconds":
            lines.append(f"{'time':<18} {show_duration(float(value))}")
        else:
            lines.append(f"{name:<18} {value}")
    return "\n".join(lines)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
