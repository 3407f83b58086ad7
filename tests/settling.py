"""The whole engine on one database without its processes: shards, gate, registry and notifier.

What they do is done by the functions of the store that the actors call, one transaction at a time,
in an order that a seed decides; so a history that fails does so again. Crashes are injected at the
store's crash points: whoever crashes begins anew as the next generation, with the same work. At a
quiet point nothing is left in the outbox, and no purge under way.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import psycopg

from actors.decoder import Batch
from actors.messages import NotifierWork, RegistryWork
from actors.store import outbox, registry, registry_sweep, resync
from actors.store.batch import Outcome
from actors.store.bisect import apply_bisecting
from actors.store.consequences import NOTIFIER, REGISTRY
from actors.store.fence import Fence
from actors.store.forget import forget
from actors.store.held import Range
from actors.store.notifications import NotificationWriter
from actors.store.session import Connection
from actors.store.takedowns import add as take_down
from actors.store.takedowns import remove as let_back
from actors.store.users import create_users
from actors.store.writer import Writer
from engine.message import Codec
from engine.sharding import shard_of
from tests.histories import Sent
from tests.reference import Reference
from tests.reference_tables import split
from tests.servers.repository import Repository
from tests.settings import OPT_OUT, Setting
from tests.tables import Tables
from tests.writing import GATE, begin_run, session

_REGISTRY: Final = Codec((RegistryWork,))
_NOTIFIER: Final = Codec((NotifierWork,))
# No work that is left takes more steps than this; what takes more never ends.
MAX_STEPS: Final = 20_000


def _no_wait(_seconds: float) -> None:
    return None


class Crash(Exception):
    """An actor dies at a crash point."""


@dataclass
class Crashes:
    """Lets actors die by chance; `at` counts where they did."""

    chance: random.Random
    rate: float = 0.0
    at: Counter[str] = field(default_factory=Counter)

    def __call__(self, name: str) -> None:
        if self.rate and self.chance.random() < self.rate:
            self.at[name] += 1
            raise Crash(name)


class Engine(ExitStack):
    """Shards, gate, registry and notifier, on connections of their own."""

    def __init__(
        self,
        conninfo: str,
        *,
        shards: int = 1,
        seed: int = 0,
        crashes: float = 0.0,
        replays: float = 0.0,
        largest: int = 40,
    ) -> None:
        super().__init__()
        self.conninfo = conninfo
        self.chance = random.Random(seed)
        self.crashes = Crashes(random.Random(seed), crashes)
        self.outcome = Outcome()
        self.replayed = 0
        self._replays = replays
        self._largest = largest
        self._epoch = begin_run(conninfo)
        self._generations: Counter[str] = Counter()
        self._shards = shards
        self._writers = [self._writer(index) for index in range(shards)]
        self._registry = self._connect(REGISTRY)[0]
        registry.prepare(self._registry)
        self._notifier = self._notification_writer()
        self._gate, self._gate_fence = self._connect(GATE)

    # --- generations -----------------------------------------------------------------------------

    def _connect(self, actor: str) -> tuple[Connection, Fence]:
        connection = self.enter_context(session(self.conninfo, actor))
        self._generations[actor] += 1
        fence = Fence(actor, self._epoch, self._generations[actor])
        fence.claim(connection)
        return connection, fence

    def _writer(self, index: int) -> Writer:
        return Writer(*self._connect(f"shard-{index}"), crash_point=self.crashes)

    def _notification_writer(self) -> NotificationWriter:
        return NotificationWriter(*self._connect(NOTIFIER), crash_point=self.crashes)

    def _on_shard(self, index: int, do: Callable[[Writer], Any]) -> Any:
        """Have a shard do something, again after each crash."""
        while True:
            try:
                return do(self._writers[index])
            except Crash:
                self._writers[index] = self._writer(index)

    def _shard_of(self, did: str) -> int:
        return shard_of(did, self._shards)

    # --- deliveries ------------------------------------------------------------------------------

    def deliver(self, stream: Iterable[Sent], host: str = "") -> None:
        """Deliver frames: each shard's in their order, in batches of any size, with other work in
        between.
        """
        queues: list[list[bytes]] = [[] for _ in range(self._shards)]
        for sent in stream:
            queues[self._shard_of(sent.did)].append(sent.frame)
        done = [0] * self._shards
        while open_ := [index for index in range(self._shards) if done[index] < len(queues[index])]:
            index = self.chance.choice(open_)
            end = done[index] + self.chance.randint(1, self._largest)
            self._apply(index, queues[index][done[index] : end], host)
            done[index] = end
            if self.chance.random() < self._replays:
                # As after a restart of the source: from somewhere before.
                done[index] = max(0, end - self.chance.randint(1, 2 * self._largest))
                self.replayed += 1
            while self.chance.random() < 0.5:
                self.step()

    def _apply(self, index: int, frames: Sequence[bytes], host: str) -> None:
        batch = Batch()
        for frame in frames:
            batch.add(frame, host)
        dids = sorted(batch.authors | batch.subjects)
        work = [(GATE, msgspec.json.encode(dids))]
        if self.chance.random() < 0.5:
            create_users(self._gate, self._gate_fence, dids)
            work = []
        outcome = self._on_shard(
            index,
            lambda writer: apply_bisecting(writer, batch.changes, work, {}, _no_wait),
        )
        self.outcome.add(outcome)
        self.outcome.drops += batch.drops

    def fetch(self, repository: Repository, *, slowly: bool = False) -> None:
        """Apply a repository as one that was fetched whole: in slices, other work in between.

        `slowly`: all that follows from a slice is done before the next.
        """
        did, rev = repository.did, repository.rev
        index, held = self._shard_of(did), repository.records()
        paths, after = list(held), ""
        while True:
            part = paths[: self.chance.randint(1, self._largest)]
            del paths[: len(part)]
            batch = Batch()
            fetched = batch.fetched(
                did, rev, [(p, held[p], repository.blocks[held[p]]) for p in part]
            )
            create_users(self._gate, self._gate_fence, sorted(batch.authors | batch.subjects))
            within = Range(after, part[-1] if paths else None)
            apply = partial(resync.apply_fetched, fetched=fetched, paths=within, wait=_no_wait)
            self.outcome.add(self._on_shard(index, apply))
            while (slowly or self.chance.random() < 0.5) and self.step():
                pass
            if not paths:
                break
            after = part[-1]
        data = repository.signed["data"]
        end = partial(resync.end, did=did, rev=rev, data=data, wait=_no_wait)
        self.outcome.add(self._on_shard(index, end))

    # --- what follows ----------------------------------------------------------------------------

    def settle(self) -> None:
        """Come to a quiet point, and do what is done every minute."""
        for _ in range(MAX_STEPS):
            if not self.step():
                break
        else:
            raise AssertionError("work goes round in circles: " + self._left())
        self._release()
        assert not self._purges(), "a purge is under way"
        assert outbox.depth(self._registry) == 0, self._left()
        assert not registry_sweep.overdue(self._registry, registry_sweep.Key(), 10_000).claims

    def step(self) -> bool:
        """Do some piece of the work that is there, whichever; False when there is none."""
        steps = [self._make_users, self._look, self._notify, self._purge]
        self.chance.shuffle(steps)
        return any(step() for step in steps)

    def _left(self) -> str:
        rows = self._registry.execute("SELECT receiver, body FROM engine_outbox").fetchall()
        return str([(receiver, bytes(body)[:400]) for receiver, body in rows[:5]])

    def _some(self, receiver: str) -> list[outbox.OutboxRow]:
        """Some of the work for a receiver, the oldest first."""
        return outbox.left_for(self._registry, receiver, self.chance.randint(1, 50))

    def _make_users(self) -> bool:
        rows = self._some(GATE)
        if rows:
            dids = [did for row in rows for did in msgspec.json.decode(row.body)]
            create_users(self._gate, self._gate_fence, dids, [row.row for row in rows])
        return bool(rows)

    def _look(self) -> bool:
        """Be the registry: look what some work makes possible, and have the shards do it."""
        rows = self._some(REGISTRY)
        if not rows:
            return False
        # Messages of several shards may come in any order.
        rows = self.chance.sample(rows, self.chance.randint(1, len(rows)))
        works = [_REGISTRY.decode(row.body) for row in rows]
        found = registry.look(self._registry, [w for w in works if isinstance(w, RegistryWork)])
        for index in range(self._shards):
            claims = [
                (claim.uri, claim.awaited)
                for claim in found.claims
                if self._shard_of(claim.author) == index
            ]
            judge = [uri for uri, did in found.judge.items() if self._shard_of(did) == index]
            if claims or judge:
                self._settle_on(index, claims, judge)
        try:
            self.crashes("before_finished")
        except Crash:
            # It looks again, and finds what it has done already.
            return True
        if found.whole:
            with self._registry.transaction():
                outbox.finish(self._registry, [row.row for row in rows])
        return True

    def _settle_on(self, index: int, claims: list[tuple[str, str]], judge: list[str]) -> None:
        outcome = self._on_shard(index, lambda writer: writer.settle(claims, judge))
        self.outcome.add(outcome)

    def _notify(self) -> bool:
        rows = self._some(NOTIFIER)
        if not rows:
            return False
        works = [_NOTIFIER.decode(row.body) for row in rows]
        ours = [work for work in works if isinstance(work, NotifierWork)]
        try:
            self._notifier.write(ours, [row.row for row in rows])
        except Crash:
            self._notifier = self._notification_writer()
        return True

    def _purges(self) -> list[str]:
        return self._writers[0].backlog()[0]

    def _purge(self) -> bool:
        subjects = self._purges()
        if not subjects:
            return False
        subject = self.chance.choice(subjects)
        did = subject if subject.startswith("did:") else subject.split("/")[2]
        self._on_shard(self._shard_of(did), lambda writer: writer.purge_slice(subject))
        return True

    def _release(self) -> None:
        fence = Fence(REGISTRY, self._epoch, self._generations[REGISTRY])
        after: str | None = ""
        while after is not None:
            after = registry_sweep.release(self._registry, fence, after, 3).next

    # --- settings --------------------------------------------------------------------------------

    def put(self, settings: Iterable[Setting]) -> None:
        """Make settings, as people and operators do while the engine runs."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            for number, setting in enumerate(settings):
                put(connection, setting, f"{self._epoch}-{number}-{self.chance.random()}")


def put(connection: psycopg.Connection[Any], setting: Setting, name: str) -> None:
    """Make one setting in a database; `name` is for the row of it."""
    kind, subject, about = setting
    match kind:
        case "mute":
            connection.execute(
                "INSERT INTO thread_mutes (uri, muter_did, thread_root_uri, created_at)"
                " VALUES (%s, %s, %s, now()) ON CONFLICT DO NOTHING",
                [name, subject, about],
            )
        case "subscribe":
            connection.execute(
                "INSERT INTO activity_subscriptions (uri, cid, subscriber_did, subject_did,"
                " created_at) VALUES (%s, '', %s, %s, now()) ON CONFLICT DO NOTHING",
                [name, subject, about],
            )
        case "opt out" | "opt in":
            connection.execute(
                "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, %s)"
                " ON CONFLICT (user_did) DO UPDATE"
                " SET data_collection_forbidden = excluded.data_collection_forbidden",
                [subject, kind == OPT_OUT],
            )
        case "forget":
            forget(connection, subject, lambda body, _did: body)
        case "take down":
            take_down(connection, [subject])
        case "let back":
            let_back(connection, [subject])


def settle(conninfo: str) -> None:
    """Carry out all that follows from what was written to a database."""
    with Engine(conninfo) as engine:
        engine.settle()


def sure(tables: Tables, reference: Reference) -> Tables:
    """The tables without what the engine may come to in more ways than one.

    That is `Notices.unsure`; see tests/reference_notifications.py for what and why.
    """
    unsure = reference.notices.unsure
    rows = {key: row for key, row in tables["notifications"].items() if key[0] not in unsure}
    return {**tables, "notifications": rows}


def wrong_waits(conninfo: str, reference: Reference) -> list[str]:
    """What is wrong with `engine_pending`: entries of what is gone, and for what is there."""
    indexed = {record.uri for record in split(reference.records.values())[0]}
    wrong = []
    with psycopg.connect(conninfo) as connection:
        entries = connection.execute("SELECT uri, awaited, author, kind FROM engine_pending")
        for uri, awaited, author, kind in entries:
            if uri not in indexed:
                wrong.append(f"{uri} is not indexed and waits for {awaited} ({kind})")
            elif awaited in indexed:
                wrong.append(f"{uri} waits for {awaited} ({kind}), which is indexed")
            elif reference.records[uri].author != author:
                wrong.append(f"{uri} waits as a record of {author}")
    return wrong
