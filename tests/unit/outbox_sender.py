"""Stands for a shard: sends work of the outbox along, or says that some was left there."""

from dataclasses import dataclass

from actors.messages import OutboxWork, SweepOutbox
from engine.actor import Actor
from engine.address import Address
from engine.message import Codec, Message


@dataclass(frozen=True)
class Script:
    """What is said: (row, number, work), or None to have the outbox looked through."""

    said: tuple[tuple[int, int, Message] | None, ...]


class Sender(Actor):
    """Says all of it to whoever comes up, and finishes."""

    settings: Script

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        if not up:
            return
        for message in [_message(said) for said in self.settings.said]:
            assert self.context.offer(peer, message)
        self.context.finish({})


def _message(said: tuple[int, int, Message] | None) -> Message:
    if said is None:
        return SweepOutbox()
    row, number, work = said
    return OutboxWork(row, number, Codec((type(work),)).encode(work))
