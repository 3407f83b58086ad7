"""A synthetic network: its firehose, of any length, from a seed.

The events are what real servers send: signed commits with their trees, proofs and records, `prev`
and `prevData`, new accounts with `#identity`, `#account`, an empty commit and `#sync`, changes of
handle and of status. Roughly half of the writes are likes, a quarter posts (of which 40 % replies),
the rest follows, reposts and a little of every other collection; about 2 % delete or change a
record. A few accounts write most, and a few posts get most of what is written. The same arguments
make the same bytes.

    python -m bench.network --events 200000 --seed 1 --users 2000 --out file.frames.gz

Memory is bounded by the living accounts and what they may hold, at some 300 bytes a record: an
account that has written `records_per_account` records falls silent, and a new one takes its place.
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from actors import capture
from actors.atproto import cbor, cid, frames, uri
from bench.network_account import Account, Own, Write, did_of, document, key_of, text_of
from bench.network_records import Draft, Records
from bench.network_world import World

START: Final = 1_735_689_600_000_000
"""The moment of the first event, in microseconds: the start of 2025."""

FIRST_USERS: Final = 0.1
"""The part of the users that is there from the start; the others arrive over time."""

_WEIGHTS: Final = {
    "app.bsky.feed.like": 50.0,
    "app.bsky.feed.post": 25.0,
    "app.bsky.graph.follow": 13.0,
    "app.bsky.feed.repost": 12.0,
    "app.bsky.actor.profile": 0.3,
    "app.bsky.actor.status": 0.05,
    "app.bsky.bookmark": 0.05,
    "app.bsky.feed.generator": 0.05,
    "app.bsky.feed.postgate": 0.1,
    "app.bsky.feed.threadgate": 0.2,
    "app.bsky.graph.block": 0.5,
    "app.bsky.graph.list": 0.2,
    "app.bsky.graph.listblock": 0.1,
    "app.bsky.graph.listitem": 0.8,
    "app.bsky.graph.starterpack": 0.1,
    "app.bsky.graph.verification": 0.03,
    "app.bsky.labeler.service": 0.02,
    "app.bsky.notification.declaration": 0.05,
    "chat.bsky.actor.declaration": 0.05,
    "com.atproto.label.label": 0.02,
    "com.example.reading.entry": 0.3,
}
# Events that are no single write, as parts of all.
_CHANGES: Final = 0.02
_SEVERAL: Final = 0.01
_OVERWRITES: Final = 0.0005
_IDENTITIES: Final = 0.002
_STATUSES: Final = 0.001
# Collections whose records others refer to.
_REFERRED: Final = frozenset(
    (
        "app.bsky.feed.repost",
        "app.bsky.feed.generator",
        "app.bsky.graph.list",
        "app.bsky.labeler.service",
        "app.bsky.graph.starterpack",
    )
)
_TRIES: Final = 12


class Network:
    """A network and its firehose.

    `users` accounts live at a time; `sign=False` puts one constant signature on every commit, which
    saves about a tenth of the time and is for benchmarks that verify none. `changes` is the part of
    the writes that delete or change a record, `statuses` that of the events by which accounts go
    away or come back.
    """

    def __init__(
        self,
        seed: int = 1,
        users: int = 2000,
        *,
        sign: bool = True,
        records_per_account: int = 5000,
        changes: float = _CHANGES,
        statuses: float = _STATUSES,
    ) -> None:
        if users < 2:
            raise ValueError("a network needs two users at least")
        self._seed = seed
        self._users = users
        self._sign = sign
        self._limit = records_per_account
        self._changes = changes
        self._statuses = statuses
        self._chance = random.Random(seed)
        self._world = World(seed, self._chance)
        self._records = Records(self._world, self._chance)
        self._collections = list(_WEIGHTS)
        self._weights = [sum(list(_WEIGHTS.values())[: n + 1]) for n in range(len(_WEIGHTS))]
        self._seq = 0
        self._now = START
        self._sleeping: list[Account] = []
        self._renamed: dict[int, str] = {}
        self._burst: Iterator[bytes] = iter(())

    def events(self, count: int) -> Iterator[bytes]:
        """The next `count` frames; users that are still to come arrive evenly over them."""
        start, last = self._seq, self._seq + count
        made, missing = self._world.made, self._users - len(self._world.accounts)
        while self._seq < last:
            frame = next(self._burst, None)
            if frame is not None:
                yield frame
                continue
            passed, arrived = self._seq - start, self._world.made - made
            due = missing * (FIRST_USERS + (1 - FIRST_USERS) * passed / count)
            # A birth is five events; in a short run they may be half of all.
            late = arrived < due and arrived * 10 <= passed
            birth = late or len(self._world.accounts) < 2
            self._burst = self._birth() if birth else self._happening()

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """DID and DID document of every account that ever was, as they are now."""
        for index in range(self._world.made):
            did, key = did_of(self._seed, index), key_of(self._seed, index)
            yield did, document(did, self._renamed.get(index, _handle(index)), key)

    def _tick(self) -> int:
        self._seq += 1
        self._now += self._chance.randrange(500, 6000)
        return self._seq

    def _birth(self) -> Iterator[bytes]:
        index = self._world.made
        self._world.made += 1
        account = Account(self._seed, index, _handle(index), self._sign)
        yield self._identity(account)
        yield self._status(account, None)
        yield account.commit([], self._tick(), self._now)
        yield account.sync(self._tick(), self._now)
        # Only now may others have it write.
        self._world.accounts.append(account)
        draft = self._records.profile(account, self._now)
        write = self._write(account, "app.bsky.actor.profile", draft)
        yield account.commit([write], self._tick(), self._now)

    def _happening(self) -> Iterator[bytes]:
        account = self._world.author()
        roll = self._chance.random()
        if account.records >= self._limit:
            self._retire(account)
            yield from self._birth()
        elif roll < _IDENTITIES:
            if self._chance.random() < 0.3:
                account.handle = f"u{account.index}-{self._seq}.network.test"
                self._renamed[account.index] = account.handle
            yield self._identity(account)
        elif roll < _IDENTITIES + self._statuses:
            yield from self._change_status(account)
        elif roll < _IDENTITIES + self._statuses + _OVERWRITES:
            yield self._overwrite(account)
        else:
            several = self._chance.random() < _SEVERAL
            writes = self._writes(account, self._chance.randint(2, 10) if several else 1)
            yield account.commit(writes, self._tick(), self._now)

    def _writes(self, account: Account, count: int) -> list[Write]:
        writes: dict[str, Write] = {}
        while len(writes) < count:
            made = None
            if account.own and self._chance.random() < self._changes:
                made = self._change(account)
            made = made or self._creation(account)
            writes.setdefault(made.path, made)
            if made is not writes[made.path]:
                break
        return list(writes.values())

    def _creation(self, account: Account) -> Write:
        (name,) = self._chance.choices(self._collections, cum_weights=self._weights)
        for _ in range(_TRIES):
            draft = self._records.makers[name](account, self._now)
            if draft is not None and (draft.token is None or draft.token not in account.done):
                return self._write(account, name, draft)
        return self._write(account, "app.bsky.feed.post", self._must("app.bsky.feed.post", account))

    def _change(self, account: Account) -> Write | None:
        """Delete or change a record that the account made not long ago."""
        at = self._chance.randrange(len(account.own))
        own = account.own[at]
        path = f"{own.collection}/{own.rkey}"
        if not account.holds(path):
            return None
        if own.token is not None:
            account.done.discard(own.token)
        del account.own[at]
        draft = self._records.makers[own.collection](account, self._now)
        # A gate is about the post whose key it has; another post's gate cannot stand there.
        gate = own.collection.endswith("gate")
        if draft is None or draft.token in account.done or gate or self._chance.random() < 0.7:
            return Write("delete", path, None)
        return self._write(account, own.collection, draft._replace(rkey=own.rkey))

    def _overwrite(self, account: Account) -> bytes:
        first, last = (self._must("app.bsky.feed.post", account) for _ in range(2))
        path = f"app.bsky.feed.post/{account.next_rkey(self._now)}"
        blocks = cbor.encode(first.record), cbor.encode(last.record)
        return account.commit_over(path, *blocks, self._tick(), self._now)

    def _must(self, name: str, account: Account) -> Draft:
        draft = self._records.makers[name](account, self._now)
        assert draft is not None, f"{name} needs nothing to refer to"
        return draft

    def _write(self, account: Account, name: str, draft: Draft) -> Write:
        rkey = draft.rkey or account.next_rkey(self._now)
        path = f"{name}/{rkey}"
        block = cbor.encode(draft.record)
        if draft.token is not None:
            account.done.add(draft.token)
        account.own.append(Own(name, rkey, draft.token))
        if draft.rkey is not None and account.holds(path):
            return Write("update", path, block)
        if name == "app.bsky.feed.post" or name in _REFERRED:
            self._publish(account, name, rkey, block, draft)
        return Write("create", path, block)

    def _publish(self, account: Account, name: str, rkey: str, block: bytes, draft: Draft) -> None:
        where, what = uri.make(account.did, name, rkey), cid.to_text(cid.compute(block))
        if name == "app.bsky.feed.post":
            self._world.add_post(account.index, where, what, draft.root)
        else:
            self._world.add_thing(name, account.index, where, what)

    def _retire(self, account: Account) -> None:
        self._world.accounts.remove(account)

    def _change_status(self, account: Account) -> Iterator[bytes]:
        """Wake a sleeping account, else send this one away: for a while, or for ever."""
        if self._sleeping and self._chance.random() < 0.6:
            account = self._sleeping.pop(self._chance.randrange(len(self._sleeping)))
            self._world.accounts.append(account)
            yield self._status(account, None)
            yield self._identity(account)
            yield account.sync(self._tick(), self._now)
        elif len(self._world.accounts) > max(2, self._users // 20):
            self._retire(account)
            status = self._chance.choice(("deactivated", "deactivated", "takendown", "deleted"))
            if status != "deleted":
                self._sleeping.append(account)
            yield self._status(account, status)
        else:
            yield self._identity(account)

    def _identity(self, account: Account) -> bytes:
        body = {"seq": self._tick(), "did": account.did, "time": text_of(self._now)}
        if self._chance.random() < 0.95:
            body["handle"] = account.handle
        return frames.encode("#identity", body)

    def _status(self, account: Account, status: str | None) -> bytes:
        body = {"seq": self._tick(), "did": account.did, "time": text_of(self._now)}
        body["active"] = status is None
        if status is not None:
            body["status"] = status
        return frames.encode("#account", body)


def _handle(index: int) -> str:
    return f"u{index}.network.test"


@click.command(help="Write the firehose of a synthetic network into a capture file.")
@click.option("--events", default=200_000, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True)
@click.option("--users", default=2000, show_default=True, type=click.IntRange(2))
@click.option("--unsigned", is_flag=True, help="One constant signature: quicker, not verifiable.")
@click.option("--documents", type=click.Path(path_type=Path), help="Where to put DID documents.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Ending in .gz or not.")
def main(
    events: int, seed: int, users: int, unsigned: bool, documents: Path | None, out: Path
) -> None:
    """Write a capture, and one line of JSON on what was made and how quickly."""
    network = Network(seed, users, sign=not unsigned)
    started = time.perf_counter()
    count = capture.write(out, network.events(events))
    seconds = time.perf_counter() - started
    if documents is not None:
        documents.write_text(json.dumps(dict(network.documents())))
    made = {"events": count, "seconds": round(seconds, 2), "events_per_second": count // seconds}
    click.echo(json.dumps({**made, "bytes": out.stat().st_size}))


if __name__ == "__main__":
    main()
