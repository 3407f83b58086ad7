"""Tells an outside label service of labels: HTTP, in order, again until it takes them.

What is to be told is read from `label_events`, so nothing waits in memory and nobody waits for the
service. What lies too far back is left out, and counted. The service gets a POST with
`{"labels": [...]}`, each label as its lexicon has it in JSON, and says with any status below 300
that it has them. It may get one twice, and must go by `cts`, as everybody who takes labels does.
"""

import base64
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from actors.lasting_session import LastingSession
from actors.outbound import Outbound, OutboundError
from actors.store import label_forwards
from actors.store.label_forwards import Told
from engine.context import Context
from engine.restarts import Backoff

log = structlog.get_logger("label_client")

KIND: Final = "label_forward"
"""What the requests are counted as."""
BATCH_EVENTS: Final = 100
MAX_BEHIND: Final = 10_000_000
"""Events that may wait for the service; older ones are left out. A labeler that is new may bring
millions at once, and they take no room but that of the table, which is there for others too.
"""
FREE_REFUSALS: Final = 10
"""Labels in a row that a service may refuse, one by one, before it is to blame for the next."""
POLL_SECONDS: Final = 5.0
ANSWER_BYTES: Final = 65_536
ANSWER_SECONDS: Final = 20.0

_BACKOFF: Final = Backoff(1.0, 300.0)
# The service says of these that it will never take them: the labels are to blame, not the moment.
_NEVER: Final = frozenset((400, 413, 422))


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a request: its status, or 0 and why there was none."""

    status: int
    problem: str = ""
    retry_after: float = 0.0


Deliver = Callable[[Answered], Awaitable[None]]
Submit = Callable[[Callable[[Deliver], Coroutine[Any, Any, None]]], object]


class LabelForwarder:
    """Tells one service; belongs to an actor's loop.

    Args:
        context: the actor's.
        session: for reading what is to be told, and noting what was.
        url: the service.
        outbound: asks it.
        submit: runs a coroutine in the I/O thread, whose deliveries come to `answered`.
        chance: for jitter.
        most_behind: events that may wait.
    """

    def __init__(
        self,
        context: Context,
        session: LastingSession,
        url: str,
        outbound: Outbound,
        submit: Submit,
        chance: random.Random,
        most_behind: int = MAX_BEHIND,
    ) -> None:
        self._context = context
        self._session = session
        self._url = url
        self._outbound = outbound
        self._submit = submit
        self._chance = chance
        self._most_behind = most_behind
        self._event = 0
        self._most = BATCH_EVENTS
        self._asked: list[Told] = []
        self._failures = 0
        self._refusals = 0
        self._rests_until = 0.0
        metrics = context.metrics
        self._told = metrics.counter("labels_forwarded_total", "Labels that the service took")
        self._failed = metrics.counter(
            "label_forward_failures_total", "Requests to the label service that came to nothing"
        )
        self._left_out = metrics.counter(
            "labels_not_forwarded_total", "Events left out: too far back, or refused by the service"
        )
        self._behind = metrics.gauge("label_forward_behind", "Events that the service is behind")

    def start(self) -> None:
        """Go on where the last run ended."""
        self._event = self._session.attempt(
            lambda connection: label_forwards.begin(connection, self._session.fence, self._url)
        )
        self._poll()

    def pump(self) -> None:
        """Ask the service to take what follows, unless it is asked already, or rests."""
        newest = self._session.attempt(label_forwards.last)
        self._behind.set(max(0, newest - self._event))
        if self._asked or self._context.clock.monotonic() < self._rests_until:
            return
        if newest - self._event > self._most_behind:
            self._leave_out(newest - self._most_behind)
        found = self._session.attempt(
            lambda connection: label_forwards.following(connection, self._event, self._most)
        )
        labels = _labels(found)
        if found and not labels:
            self._move(found[-1].event)
            self._context.after(0.0, self.pump)
        elif found:
            self._asked = found
            self._submit(partial(self._ask, _body(labels)))

    def answered(self, answer: Answered) -> None:
        """Handle an answer."""
        asked, self._asked = self._asked, []
        self._context.crash_point("label_client.answered")
        if 200 <= answer.status < 300:
            if self._failures or self._refusals >= FREE_REFUSALS:
                log.info("the label service takes labels again", url=self._url)
            self._failures = self._refusals = 0
            self._most = BATCH_EVENTS
            self._told.add(len(_labels(asked)))
            self._move(asked[-1].event)
        elif answer.status in _NEVER:
            self._refused(asked, answer)
        else:
            self._failures += 1
            self._rest(answer, self._failures)
        self._context.crash_point("label_client.forwarded")
        self._context.after(0.0, self.pump)

    async def _ask(self, body: bytes, deliver: Deliver) -> None:
        try:
            response = await self._outbound.post(
                self._url,
                body,
                limit_bytes=ANSWER_BYTES,
                seconds=ANSWER_SECONDS,
                headers={"Content-Type": "application/json"},
                kind=KIND,
            )
        except OutboundError as error:
            await deliver(Answered(error.status, str(error), error.retry_after))
        else:
            await deliver(Answered(response.status, f"it answered with HTTP {response.status}"))

    def _refused(self, asked: list[Told], answer: Answered) -> None:
        """Find out which label it is that the service will not have, and leave that out; ever more
        slowly where it will have none, as then it is not the labels that are wrong.
        """
        if len(asked) > 1:
            self._failed.add()
            self._most = len(asked) // 2
            return
        self._refusals += 1
        report = log.warning if self._refusals <= FREE_REFUSALS else log.debug
        report(
            "the label service refuses a label: it is left out",
            url=self._url,
            label=asked[0].label,
            problem=answer.problem,
        )
        self._left_out.add()
        self._move(asked[0].event)
        if self._refusals < FREE_REFUSALS:
            self._failed.add()
        else:
            self._rest(answer, self._refusals - FREE_REFUSALS + 1)

    def _rest(self, answer: Answered, failures: int) -> None:
        self._failed.add()
        pause = max(_BACKOFF.delay(failures, self._chance), answer.retry_after)
        self._rests_until = self._context.clock.monotonic() + pause
        report = log.warning if failures == 1 else log.debug
        report(
            "the label service takes no labels: they are told later",
            url=self._url,
            problem=answer.problem,
            seconds=round(pause, 1),
        )
        self._context.after(pause, self.pump)

    def _leave_out(self, until: int) -> None:
        after = self._event
        events = self._session.attempt(
            lambda connection: label_forwards.count(connection, after, until)
        )
        if events:
            log.error(
                "the label service is too far behind: labels are left out",
                url=self._url,
                events=events,
            )
        self._left_out.add(events)
        self._move(until)

    def _move(self, event: int) -> None:
        self._session.attempt(
            lambda connection: label_forwards.move(
                connection, self._session.fence, self._url, event
            )
        )
        self._event = event

    def _poll(self) -> None:
        self.pump()
        self._context.after(POLL_SECONDS, self._poll)


def _labels(told: list[Told]) -> list[dict[str, Any]]:
    """What events are about; of several about one label the last one tells it all."""
    labels = {}
    for event in told:
        if event.label is not None:
            key = tuple(event.label.get(name) for name in ("src", "uri", "cid", "val"))
            labels[key] = event.label
    return list(labels.values())


def _body(labels: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode({"labels": [_as_json(label) for label in labels]})


def _as_json(label: dict[str, Any]) -> dict[str, Any]:
    """A label in the JSON of the protocol, which has its own form for bytes."""
    sig = label.get("sig")
    if sig is None:
        return label
    return {**label, "sig": {"$bytes": base64.b64encode(sig).decode().rstrip("=")}}
