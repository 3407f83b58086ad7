"""Who accounts are, asked of a directory, a name system and sites on loopback."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from actors.identity.document import Document
from actors.identity.handles import INVALID
from actors.identity.verdict import Outcome, Verdict
from actors.outbound import Outbound
from actors.resolving import Answer, Halt, Question, Resolving
from actors.turns import Turns
from tests.corpus.files import document
from tests.servers import faults
from tests.servers.certificates import authority
from tests.servers.client import Counts, VirtualClock, network
from tests.servers.directory import PlcDirectory, Sites
from tests.servers.dns import DnsServer
from tests.servers.internet import PUBLIC

ANN, BEN = (f"did:plc:{letter * 24}" for letter in "ab")
HANDLE = "ann.example.com"
WEB = "did:web:dora.example.com"


def doc(did: str, *handles: str, **more: Any) -> dict[str, Any]:
    return {"id": did, "alsoKnownAs": [f"at://{handle}" for handle in handles], **more}


class World:
    """A small network, under production's rules."""

    def __init__(self, plc: PlcDirectory, dns: DnsServer, sites: Sites) -> None:
        self.plc = plc
        self.dns = dns
        self.sites = sites
        self.counts = Counts()
        self.clock = VirtualClock()

    def resolving(self, **more: Any) -> Resolving:
        settings = network(
            plc_url=self.plc.url,
            nameservers=self.dns.nameserver,
            dns_seconds=1.0,
            tries=1,
            requests_per_second=1000.0,
        )
        client: dict[str, Any] = {
            "count": self.counts,
            "clock": self.clock,
            "sleep": self.clock.sleep,
            "tls": authority().trust(),
            "routes": {(PUBLIC, 443): ("127.0.0.1", self.sites.port)},
        }
        self.directory = Outbound(settings, **client)
        self.network = Outbound(settings, **client)
        return Resolving(
            self.directory,
            self.network,
            plc_url=self.plc.url,
            now=self.clock.monotonic,
            **more,
        )

    def ask_all(self, *questions: Question, together: bool = False, **more: Any) -> list[Answer]:
        async def go() -> list[Answer]:
            resolving = self.resolving(**more)
            async with self.directory, self.network:
                if together:
                    return list(
                        await asyncio.gather(*(resolving.resolve(each) for each in questions))
                    )
                return [await resolving.resolve(each) for each in questions]

        return asyncio.run(go())

    def ask(self, did: str, held: str = INVALID, **more: Any) -> Verdict:
        (answer,) = self.ask_all(Question(did, held), **more)
        assert isinstance(answer.result, Verdict), answer
        return answer.result

    def site(self, handle: str, did: str | None = None) -> None:
        self.dns.a(handle, PUBLIC)
        if did is not None:
            self.sites.handles[handle] = did


@pytest.fixture
def world() -> Iterator[World]:
    tls = authority().server(HANDLE, "*.example.com", "dora.example.com")
    with PlcDirectory() as plc, DnsServer() as dns, Sites(tls=tls) as sites:
        plc.documents[ANN] = doc(ANN, HANDLE)
        plc.documents[BEN] = doc(BEN, HANDLE)
        yield World(plc, dns, sites)


# --- both directions -----------------------------------------------------------------------------


def test_a_handle_is_verified_by_the_name_system(world: World) -> None:
    world.dns.txt(f"_atproto.{HANDLE}", f"did={ANN}")
    verdict = world.ask(ANN)
    assert verdict == Verdict(Outcome.VALID, Document(claimed=HANDLE), HANDLE, True, None)
    assert world.counts == {("plc", "ok"): 1, ("txt", "ok"): 1}


def test_a_handle_is_verified_by_its_site_where_the_name_system_knows_nothing(
    world: World,
) -> None:
    world.site(HANDLE, ANN)
    assert world.ask(ANN).handle == HANDLE
    assert world.counts["handle", "ok"] == 1


def test_the_name_system_wins_over_the_site(world: World) -> None:
    world.dns.txt(f"_atproto.{HANDLE}", f"did={BEN}")
    world.site(HANDLE, ANN)
    assert world.ask(ANN).outcome is Outcome.MISMATCH
    assert world.ask(BEN).outcome is Outcome.VALID
    assert world.sites.requests == []


def test_a_handle_that_leads_to_two_accounts_is_nobodys(world: World) -> None:
    world.dns.txt(f"_atproto.{HANDLE}", f"did={ANN}", f"did={BEN}")
    world.site(HANDLE, ANN)
    assert world.ask(ANN).outcome is Outcome.AMBIGUOUS
    world.dns.txt(f"_atproto.{HANDLE}", f"did={ANN}", f"did={ANN}", "v=spf1 -all")
    assert world.ask(ANN).outcome is Outcome.VALID


@pytest.mark.parametrize(
    "fault",
    [
        faults.content(b"<html>hello</html>"),
        faults.status(404),
        faults.status(410),
        faults.content(b"x" * 3000),
        faults.bomb("gzip", 10**7),
        faults.redirect("https://127.0.0.1/.well-known/atproto-did"),
        faults.redirect("http://ann.example.com/"),
    ],
    ids=lambda fault: fault.name,
)
def test_a_site_that_names_no_did_takes_the_handle_away(world: World, fault: faults.Fault) -> None:
    world.site(HANDLE, ANN)
    world.sites.fail(fault)
    verdict = world.ask(ANN, HANDLE)
    assert (verdict.outcome, verdict.settled) == (Outcome.UNRESOLVED, True)
    assert fault.fired


def test_a_name_that_is_gone_or_leads_inside_takes_the_handle_away(world: World) -> None:
    assert world.ask(ANN, HANDLE).outcome is Outcome.UNRESOLVED
    world.dns.a(HANDLE, "169.254.169.254")
    assert world.ask(ANN, HANDLE).outcome is Outcome.UNRESOLVED
    assert world.sites.connections == 0


@pytest.mark.parametrize(
    "fault",
    [faults.status(500), faults.status(429), faults.status(403), faults.drop(), faults.cut()],
    ids=lambda fault: fault.name,
)
def test_a_site_that_fails_keeps_its_handle_for_some_days(
    world: World, fault: faults.Fault
) -> None:
    world.site(HANDLE, ANN)
    world.sites.fail(fault)
    asked = [Question(ANN, HANDLE, silence) for silence in (0.0, 1e6)]
    soon, late = (answer.result for answer in world.ask_all(*asked, memory_seconds=0.0))
    assert isinstance(soon, Verdict)
    assert (soon.outcome, soon.settled, soon.document) == (
        *(Outcome.DEFERRED, False),
        Document(claimed=HANDLE),
    )
    assert isinstance(late, Verdict)
    assert (late.outcome, late.settled) == (Outcome.UNREACHABLE, True)


@pytest.mark.parametrize("how", ["silent", "broken"])
def test_where_the_name_system_fails_the_site_can_help_and_not_harm(world: World, how: str) -> None:
    getattr(world.dns, how).add(f"_atproto.{HANDLE}")
    world.site(HANDLE, ANN)
    mine, others = world.ask_all(Question(ANN), Question(BEN, HANDLE))
    assert isinstance(mine.result, Verdict)
    assert mine.result.handle == HANDLE
    assert mine.names is False
    assert isinstance(others.result, Verdict)
    assert (others.result.outcome, others.result.settled) == (Outcome.DEFERRED, False)


def test_a_handle_for_tests_is_asked_for_in_development_only(world: World) -> None:
    world.plc.documents[ANN] = doc(ANN, "ann.test")
    world.dns.txt("_atproto.ann.test", f"did={ANN}")
    assert world.ask(ANN).outcome is Outcome.RESERVED
    assert world.counts == {("plc", "ok"): 1}
    assert world.ask(ANN, development=True).handle == "ann.test"


# --- documents -----------------------------------------------------------------------------------


def test_the_directory_says_that_there_is_no_account(world: World) -> None:
    world.plc.tombstones.add(BEN)
    assert world.ask(BEN, HANDLE).outcome is Outcome.TOMBSTONED
    del world.plc.documents[ANN]
    verdict = world.ask(ANN)
    assert (verdict.outcome, verdict.settled, verdict.document) == (
        *(Outcome.NOT_FOUND, True),
        Document(),
    )


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.status(404, body=b"<html>not here</html>"),
        faults.status(403),
        faults.content(b"<html>sign in to this network</html>"),
        faults.content(json.dumps(doc(BEN)).encode()),
        faults.content(b"x" * 100_000),
        faults.redirect("https://ann.example.com/"),
        faults.drop(),
        faults.cut(),
        faults.bomb("gzip", 10**7),
    ],
    ids=lambda fault: fault.name,
)
def test_a_directory_that_talks_nonsense_or_fails_changes_nothing(
    world: World, fault: faults.Fault
) -> None:
    world.plc.fail(fault)
    (answer,) = world.ask_all(Question(ANN, HANDLE, 1e9))
    assert isinstance(answer.result, Verdict)
    assert answer.result.outcome is Outcome.DEFERRED
    assert (answer.result.settled, answer.result.document) == (False, None)
    assert answer.directory is False
    assert fault.fired


def test_a_directory_that_asks_to_be_left_alone_is(world: World) -> None:
    limited = world.plc.fail(faults.status(429, {"Retry-After": "600"}))
    first, second = world.ask_all(Question(ANN), Question(BEN))
    assert isinstance(first.result, Halt)
    assert isinstance(second.result, Halt)
    assert first.result.seconds == 600
    assert 0 < second.result.seconds <= 600
    assert limited.fired == 1


def test_a_site_of_did_web_has_its_document(world: World) -> None:
    world.dns.a("dora.example.com", PUBLIC)
    world.dns.txt("_atproto.dora.example.com", f"did={WEB}")
    world.sites.documents["dora.example.com"] = doc(WEB, "dora.example.com")
    assert world.ask(WEB).handle == "dora.example.com"
    world.sites.documents["dora.example.com"] = doc(ANN, "dora.example.com")
    assert world.ask(WEB, "dora.example.com").outcome is Outcome.BAD_DOCUMENT
    world.sites.documents.clear()
    assert world.ask(WEB, "dora.example.com").outcome is Outcome.NOT_FOUND
    world.sites.fail(faults.status(500))
    verdict = world.ask(WEB, "dora.example.com")
    assert (verdict.outcome, verdict.settled) == (Outcome.DEFERRED, False)
    world.dns.forget("dora.example.com")
    assert world.ask(WEB).outcome is Outcome.NOT_FOUND
    world.dns.a("dora.example.com", "10.0.0.1")
    assert world.ask(WEB).outcome is Outcome.BAD_DOCUMENT


@pytest.mark.parametrize(
    "did",
    [
        "did:key:zQ3sh",
        "did:web:localhost%3A80",
        "did:web:a.example.com:path",
        "did:web:127.0.0.1",
        "did:plc:short",
        "did:plc:../../x",
    ],
)
def test_other_methods_and_forms_ask_nobody(world: World, did: str) -> None:
    assert world.ask(did).outcome is Outcome.UNSUPPORTED
    assert not world.counts


# --- many ----------------------------------------------------------------------------------------


def test_accounts_that_name_one_handle_ask_for_it_once(world: World) -> None:
    dids = [f"did:plc:{'c' * 21}{a}{b}{c}" for a in "abcd" for b in "abcd" for c in "abc"]
    for did in dids:
        world.plc.documents[did] = doc(did, HANDLE)
    world.dns.txt(f"_atproto.{HANDLE}", f"did={dids[7]}")
    answers = world.ask_all(*(Question(did) for did in dids), together=True)
    good = [answer.did for answer in answers if answer.result[0] is Outcome.VALID]
    assert good == [dids[7]]
    assert world.counts["txt", "ok"] == 1
    assert world.counts["plc", "ok"] == len(dids)


def test_where_a_handle_leads_is_known_for_a_while_within_a_bound(world: World) -> None:
    async def go() -> None:
        resolving = world.resolving(memory=2, memory_seconds=60.0)
        async with world.directory, world.network:
            for letter in "abc":
                world.plc.documents[ANN] = doc(ANN, f"{letter}.example.com")
                await resolving.resolve(Question(ANN))
            assert resolving.remembered == 2
            world.dns.txt("_atproto.c.example.com", f"did={ANN}")
            stale = await resolving.resolve(Question(ANN))
            assert stale.result[0] is Outcome.UNRESOLVED
            world.clock.pass_by(1.0)
            # One whose identity changed does not take what is from before.
            fresh = await resolving.resolve(Question(ANN, fresh=True))
            assert fresh.result[0] is Outcome.VALID
            world.dns.forget("_atproto.c.example.com")
            world.clock.pass_by(61.0)
            assert (await resolving.resolve(Question(ANN))).result[0] is Outcome.UNRESOLVED

    asyncio.run(go())


def test_a_directory_down_for_an_hour_changes_nothing_and_is_not_hammered(world: World) -> None:
    """A thousand accounts are due all the time, and as many are asked for as may be."""
    world.dns.txt(f"_atproto.{HANDLE}", f"did={ANN}")
    down = world.plc.fail(faults.status(503))
    clock, turns = world.clock, Turns(20)
    verdicts: list[Verdict] = []

    async def go() -> None:
        resolving = world.resolving()
        async with world.directory, world.network:
            start = clock.monotonic()
            while clock.monotonic() - start < 3600:
                await around(resolving)
            world.plc.heal()
            while not verdicts or verdicts[-1].outcome is not Outcome.VALID:
                assert clock.monotonic() - start < 4800
                await around(resolving)

    async def around(resolving: Resolving) -> None:
        room = turns.room(True, clock.monotonic())
        for answer in await asyncio.gather(
            *(resolving.resolve(Question(ANN, HANDLE)) for _ in range(room))
        ):
            if answer.directory:
                turns.directory.worked()
            elif isinstance(answer.result, Halt):
                turns.directory.failed(clock.monotonic(), answer.result.seconds, surely=True)
            else:
                turns.directory.failed(clock.monotonic())
            if isinstance(answer.result, Verdict):
                verdicts.append(answer.result)
        clock.pass_by(1.0)

    asyncio.run(go())
    # Those under way when it went down, and then the tries of its breaker.
    assert 5 < down.fired <= 20 + 15
    assert len(verdicts) < 80
    changed = [verdict for verdict in verdicts if verdict.settled]
    assert {verdict.handle for verdict in changed} == {HANDLE}


def test_every_recorded_document_is_read_from_the_directory(world: World) -> None:
    recorded = document("did-documents")
    world.plc.documents |= {did: doc_ for did, doc_ in recorded.items() if "plc" in did}
    dids = sorted(world.plc.documents.keys() & recorded.keys())
    for handle, did in document("handles").items():
        if did is not None:
            world.dns.txt(f"_atproto.{handle}", f"did={did}")
    answers = world.ask_all(*(Question(did) for did in dids), together=True, development=True)
    good = {
        answer.result.handle: answer.did
        for answer in answers
        if isinstance(answer.result, Verdict) and answer.result.handle
    }
    # Those of did:web are at sites of their own.
    expected = {handle: did for handle, did in document("handles").items() if did in dids}
    assert good == expected
    assert len(good) > 50


@pytest.mark.parametrize("question", [Question(ANN, HANDLE), Question(ANN, known=True)])
def test_a_directory_that_has_lost_an_account_takes_nothing_from_it(
    world: World, question: Question
) -> None:
    del world.plc.documents[ANN]
    lost, never = world.ask_all(question, Question(ANN))
    assert isinstance(lost.result, Verdict)
    assert (lost.result.outcome, lost.result.settled) == (Outcome.DEFERRED, False)
    assert lost.directory is False
    assert isinstance(never.result, Verdict)
    assert never.result.outcome is Outcome.NOT_FOUND
