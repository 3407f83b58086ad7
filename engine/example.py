"""A whole program: a poet tells its lines to a counter, which counts their letters.

``python -m engine.example`` runs it, two processes and their supervisor, and prints the count.
"""

import tempfile

from engine.actor import Actor, Delivery
from engine.address import Address
from engine.child import ChildSpec
from engine.message import Message
from engine.supervisor import Supervisor
from engine.topology import Edge, EdgeKind, Group, Topology


class Words(Message, frozen=True):
    words: tuple[str, ...]


class Poet(Actor):
    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        if up and generation == 1:
            for line in self.settings:
                self.context.tell(peer, Words(tuple(line.split())))


class Counter(Actor):
    letters = 0

    def receive(self, message: Message, delivery: Delivery) -> None:
        assert isinstance(message, Words)
        self.letters += sum(map(len, message.words))
        if delivery.number == self.settings:
            self.context.finish({"letters": self.letters})


def main() -> None:
    poem = ("An old silent pond", "a frog jumps into the pond", "splash silence again")
    topology = Topology(
        groups=(
            Group("counter", (ChildSpec("counter", Counter, len(poem)),)),
            Group("poet", (ChildSpec("poet", Poet, poem),)),
        ),
        edges=(Edge("poet", "counter", EdgeKind.TELL),),
        messages=(Words,),
    )
    with tempfile.TemporaryDirectory() as run_dir:
        print(Supervisor(topology, run_dir).run().report)


if __name__ == "__main__":
    main()
