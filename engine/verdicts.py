"""What is done about a child that died or went silent, and the line in the log that says so."""

from __future__ import annotations

import random
from collections.abc import Sequence

import structlog

from engine.restarts import Intensity
from engine.shutdown import Ending, Send, dismissal
from engine.topology import Topology
from engine.ward import ActorWard, Exit, ServiceWard, State, Ward
from engine.window import DEATHS_BEFORE_ISOLATION

log = structlog.get_logger("supervisor")


class Judge:
    """Applies restart types, strategies, intensities and backoffs to the wards.

    `dismissals` are the wards on their way down because another one of their group died.
    """

    def __init__(self, topology: Topology, wards: Sequence[Ward], chance: random.Random) -> None:
        self._wards = wards
        self._chance = chance
        self._meters = {g.name: Intensity(g.intensity, g.period) for g in topology.groups}
        self._isolated = {
            g.name: Intensity(g.isolated_deaths, g.isolated_period) for g in topology.groups
        }
        self.dismissals: list[Ending] = []

    def turn(self, now: float) -> None:
        """Go on with the dismissals."""
        for ending in self.dismissals:
            ending.turn(now)
        self.dismissals = [ending for ending in self.dismissals if ending.ward.alive]

    def silence(self, ward: Ward, now: float) -> None:
        """Kill a ward that was not heard of for too long; its death is judged when it is seen."""
        silent = now - ward.heard_at
        note = f" (last: {ward.progress.note})" if ward.progress.note else ""
        if ward.state is State.STARTING and silent > ward.spec.start_seconds:
            ward.doom = f"not ready after {now - ward.begun_at:.0f} s{note}, killed"
        elif (
            ward.state is State.READY
            and isinstance(ward, ActorWard)
            and silent > ward.spec.stall_seconds
        ):
            ward.doom = f"stuck: no progress for {silent:.0f} s{note}, killed"
        else:
            return
        log.error(
            f"{ward.name} is killed: {ward.doom.removesuffix(', killed')}",
            actor=ward.name,
            pid=ward.pid,
            generation=ward.generation,
            backlog=ward.progress.backlog,
        )
        ward.state = State.ENDING
        ward.kill()

    def sentence(self, ward: Ward, exit_: Exit, now: float, *, pid: int | None, send: Send) -> str:
        """Plan the restart of a ward that ended by itself, and of those that go with it.

        Returns "" or, when restarting is no use any more, why the run must end.
        """
        about = {
            "actor": ward.name,
            "pid": pid,
            "generation": ward.generation,
            "reason": exit_.reason,
        }
        ended = "stopped by itself" if exit_.orderly else "died"
        if not ward.restart.wanted_after(crashed=not exit_.orderly):
            ward.state = State.DONE
            log.info(f"{ward.name} {ended}: {exit_.reason}; not restarted", **about)
            return ""
        group = ward.group
        excuse = self._excuse(ward)
        meter = self._isolated[group.name] if excuse == "isolated" else self._meters[group.name]
        if excuse != "no service" and not meter.spend(now, ward.name):
            kind = "deaths on single messages" if excuse == "isolated" else "restarts"
            despair = (
                f"giving up: more than {meter.most} {kind} in {meter.period:g} s"
                f" in group {group.name}; {ward.name} last {ended}: {exit_.reason}"
            )
            ward.state = State.DONE
            return despair
        if ward.ready_at is not None and now - ward.ready_at >= group.period:
            ward.failures = 0
        ward.failures = 1 if excuse == "isolated" else ward.failures + 1
        delay = group.backoff.delay(ward.failures, self._chance)
        ward.state = State.WAITING
        ward.start_at = now + delay
        ward.restarts += 1
        taken = self._dismiss_with(ward, now, send)
        count = {
            "isolated": "not counted, as its messages are sent to it one at a time",
            "no service": "not counted, as a service is down, and not before that is up",
            "": f"{meter.count(now)} of {meter.most} restarts in {meter.period:g} s",
        }[excuse]
        together = f" together with {', '.join(taken)}" if taken else ""
        log.warning(
            f"{ward.name} {ended}: {exit_.reason}; restarting{together} in {delay:.1f} s ({count})",
            **about,
        )
        return ""

    def pardon(self, ward: Ward) -> None:
        """The deaths that led to an isolation are taken for those of the messages, too."""
        self._meters[ward.group.name].refund(ward.name, DEATHS_BEFORE_ISOLATION)

    def _excuse(self, ward: Ward) -> str:
        """Why this death does not count against the intensity, "" when it does."""
        if isinstance(ward, ServiceWard):
            return ""
        if any(ward.name in other.isolates for other in self._wards if other.alive):
            return "isolated"
        if any(isinstance(other, ServiceWard) and not other.settled for other in self._wards):
            return "no service"
        return ""

    def _dismiss_with(self, ward: Ward, now: float, send: Send) -> list[str]:
        group = [other for other in self._wards if other.group is ward.group]
        affected = ward.group.strategy.affected([other.name for other in group], ward.name)
        taken: list[str] = []
        for other in reversed(group):
            if other is ward or other.name not in affected or not other.alive:
                continue
            other.start_at = ward.start_at
            if other.state is State.ENDING:
                continue
            other.dismissed = True
            other.restarts += 1
            taken.append(other.name)
            if isinstance(other, ActorWard):
                self.dismissals.append(Ending(other, dismissal(other.spec), send, now))
            else:
                other.state = State.ENDING
                other.kill()
        return taken
