"""A site that was not asked, as others beside it fail, says nothing: no handle is lost by it."""

from actors.identity.verdict import Outcome, Verdict
from actors.resolving import Question
from tests.servers import faults
from tests.unit.test_resolving import HANDLE, World, doc, world

__all__ = ["world"]

DAYS = 10 * 86_400.0


def test_the_failures_of_others_cost_nobody_a_handle_however_long_that_goes_on(
    world: World,
) -> None:
    questions = []
    for number in range(7):
        did = f"did:plc:{'bcdefgh'[number] * 24}"
        handle = HANDLE if number == 6 else f"u{number}.example.com"
        world.plc.documents[did] = doc(did, handle)
        world.site(handle)
        questions.append(Question(did, handle, DAYS))
    fault = world.sites.fail(faults.status(429, {"Retry-After": "60"}))
    results = [answer.result for answer in world.ask_all(*questions)]
    # Five were asked, and the rest was left alone with them.
    assert fault.fired == 5
    assert [each.outcome for each in results if isinstance(each, Verdict)] == [
        *[Outcome.UNREACHABLE] * 5,
        *[Outcome.DEFERRED] * 2,
    ]
    last = results[-1]
    assert isinstance(last, Verdict)
    assert (last.settled, last.wait > 20.0) == (False, True)
