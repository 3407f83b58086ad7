"""Who may start now: groups one after the other, each once the one before it is up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from engine.restarts import Strategy
from engine.topology import Topology
from engine.ward import ActorWard, ServiceWard, State, Ward


class _Epoch:
    """Takes the epoch in a thread, as the database may let it wait while a signal must not."""

    def __init__(self, take: Callable[[], int]) -> None:
        self._take = take
        self._error: BaseException | None = None
        self._value: int | None = None
        self._thread = threading.Thread(target=self._work, name="epoch", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._value = self._take()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = error

    def value(self) -> int | None:
        """None while it is not known. Raises what taking it raised."""
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        return self._value


class Starter:
    """Decides which of the waiting wards are due, at the first start and at every restart.

    A group begins once all groups before it have been up. From then on its wards start when their
    backoff is over, no ward of their group is on its way down, and all services are up; where the
    strategy is rest_for_one, also not before their predecessors are up.
    """

    def __init__(self, topology: Topology, wards: Sequence[Ward]) -> None:
        self._take_epoch = topology.epoch
        self._epoch: _Epoch | None = None
        self._epoch_known = False
        self._wards = wards
        self._groups = [
            [ward for ward in wards if ward.group is group] for group in topology.groups
        ]
        self._begun = 0
        self.complete = False
        """Whether all groups have been up once."""

    @property
    def busy(self) -> bool:
        """Whether something goes on that tells nobody when it is over, and must be asked."""
        taking = self._epoch is not None and not self._epoch_known
        return taking or any(
            isinstance(ward, ServiceWard) and ward.state is State.STARTING for ward in self._wards
        )

    def epoch(self) -> int | None:
        """The epoch, at the one moment when it becomes known, else None.

        Raises what the topology's `epoch` raises.
        """
        if self._epoch is None or self._epoch_known:
            return None
        value = self._epoch.value()
        self._epoch_known = value is not None
        return value

    def due(self, now: float) -> list[Ward]:
        """The wards to start now, in start order."""
        while self._begun < len(self._groups) and self._may_begin():
            self._begun += 1
        self.complete = self.complete or (
            self._begun == len(self._groups) and all(ward.settled for ward in self._wards)
        )
        return [
            ward
            for group in self._groups[: self._begun]
            for at, ward in enumerate(group)
            if ward.state is State.WAITING and ward.start_at <= now and self._may_start(group, at)
        ]

    def _may_begin(self) -> bool:
        if not all(ward.settled for group in self._groups[: self._begun] for ward in group):
            return False
        if self._take_epoch is None or isinstance(self._groups[self._begun][0], ServiceWard):
            return True
        if self._epoch is None:
            self._epoch = _Epoch(self._take_epoch)
        return self._epoch_known

    def _may_start(self, group: Sequence[Ward], at: int) -> bool:
        ward = group[at]
        if any(other.state is State.ENDING for other in group):
            return False
        if ward.group.strategy is Strategy.REST_FOR_ONE and not all(
            earlier.settled for earlier in group[:at]
        ):
            return False
        return not isinstance(ward, ActorWard) or all(
            other.settled for other in self._wards if isinstance(other, ServiceWard)
        )
