"""`run.py verify`: checks every counter and derived row, tells what differs, mends it on demand."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from actors.commands.opening import database_of, present, settings_of, shared_options

if TYPE_CHECKING:
    from actors.store.repair import Mended
    from actors.store.verify import Survey
    from actors.store.verify_walk import Difference, Step

EXIT_DIFFERENCES: Final = 1
# Differences told one by one for each check; of the rest the number is told.
_TOLD: Final = 20
_log = logging.getLogger(__name__)


@click.command()
@click.option("--repair", is_flag=True, help="Mend what differs; safe beside a running engine.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@shared_options
@click.pass_context
def verify(context: click.Context, /, *, repair: bool, as_json: bool, **given: Any) -> None:
    """Recompute every counter from its rows and check the invariants; exit 1 if any differs.

    It reads in slices, by index look-ups, and may run beside the engine. What it can tell is in
    docs/verify.md.
    """
    from actors.store.repair import repair as mend
    from actors.store.verify import survey

    settings = settings_of(context.obj | present(given))
    log = ProgressLog("repair" if repair else "verify", settings.log.progress_seconds)
    with database_of(settings, only_look=True) as conninfo:
        if repair:
            result = mend(conninfo, progress=log.step)
            wrong, lines, said = result.left, mended_lines(result), mended_json(result)
        else:
            seen = survey(conninfo, progress=log.step)
            wrong, lines, said = seen.differences, survey_lines(seen), survey_json(seen)
    for line in [json.dumps(said)] if as_json else lines:
        click.echo(line)
    if wrong:
        context.exit(EXIT_DIFFERENCES)


class ProgressLog:
    """Give `step` to a walk: it logs one line every so many seconds, so a short walk logs none."""

    def __init__(self, what: str, interval: float) -> None:
        self._what = what
        self._interval = interval
        self._next = time.monotonic() + interval

    def step(self, step: Step) -> None:
        """Log how far the walk is, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._interval
        _log.info(
            "%s: %d of %d checks, %s rows looked at, %s a second, %s found; now %s",
            self._what,
            step.done,
            step.checks,
            f"{step.rows:,}",
            f"{step.rows / max(step.seconds, 0.001):,.0f}",
            f"{step.found:,}",
            step.check or "the second look",
        )


def survey_lines(survey: Survey) -> list[str]:
    """The report of a verify, line by line."""
    number = len(survey.differences)
    lines = _differences(survey.differences)
    for name in survey.cut:
        lines.append(f"there may be more: {name} stopped looking at its limit")
    if survey.unsettled:
        count = len(survey.unsettled)
        lines.append(
            f"{_number(count, 'difference')} left open, since work waits in engine_outbox or"
            " engine_purges that may mend it and that nobody does: run the engine, then verify"
        )
    return [*lines, _number(number, "difference")]


def survey_json(survey: Survey) -> dict[str, Any]:
    """The report of a verify as one object."""
    return {
        "differences": [_as_json(one) for one in survey.differences],
        "unsettled": [_as_json(one) for one in survey.unsettled],
        "limited": survey.cut,
        "rows": survey.rows,
        "seconds": round(survey.seconds, 3),
    }


def mended_lines(result: Mended) -> list[str]:
    """The report of a repair: a line for each check that found something, then what is left."""
    lines = [f"{name}: mended {count:,}" for name, count in result.mended.items() if count]
    if result.left:
        lines += _differences(result.left)
        return [*lines, f"{_number(len(result.left), 'difference')} left that cannot be mended"]
    total = result.mended.total()
    return [*lines, f"{_number(total, 'difference')}{', all mended' if total else ''}"]


def mended_json(result: Mended) -> dict[str, Any]:
    """The report of a repair as one object."""
    return {
        "mended": {name: count for name, count in result.mended.items() if count},
        "left": [_as_json(one) for one in result.left],
        "walks": result.walks,
        "rows": result.rows,
        "seconds": round(result.seconds, 3),
        "longest_hold_seconds": round(result.held, 3),
    }


def _differences(found: Sequence[Difference]) -> list[str]:
    lines = []
    told: Counter[str] = Counter()
    for one in found:
        told[one.check] += 1
        if told[one.check] <= _TOLD:
            lines.append(str(one))
    return lines + [
        f"and {count - _TOLD:,} more of {name}" for name, count in told.items() if count > _TOLD
    ]


def _as_json(one: Difference) -> dict[str, str]:
    return {
        "check": one.check,
        "key": one.key,
        "detail": one.detail,
        "found": one.found,
        "expected": one.expected,
    }


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
