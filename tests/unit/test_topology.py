"""The system as data, and the contradictions that it refuses."""

from typing import cast

import pytest

from engine.actor import Actor
from engine.child import ChildSpec, Service, ServiceSpec
from engine.topology import Edge, EdgeKind, Group, Topology, TopologyError


def child(name: str) -> ChildSpec:
    return ChildSpec(name, Actor)


def service(name: str) -> ServiceSpec:
    return ServiceSpec(name, cast("Service", object()))


def group(name: str, *children: str) -> Group:
    return Group(name, tuple(child(each) for each in children or (name,)))


GATE = group("gate")
SHARDS = group("shard", "shard-0", "shard-1")
INGEST = group("ingest")
EDGES = (
    Edge("ingest", "shard", EdgeKind.TELL, messages=8),
    Edge("shard", "gate", EdgeKind.OFFER),
)


def test_a_group_name_stands_for_each_of_its_actors() -> None:
    topology = Topology((GATE, SHARDS, INGEST), EDGES)
    assert [(e.sender, e.receiver) for e in topology.edges_of("ingest")] == [
        ("ingest", "shard-0"),
        ("ingest", "shard-1"),
    ]
    assert all(edge.messages == 8 for edge in topology.edges_of("ingest"))
    assert [(e.sender, e.receiver) for e in topology.edges_of("shard-1")] == [
        ("ingest", "shard-1"),
        ("shard-1", "gate"),
    ]


def test_peers_are_those_at_the_other_end_of_an_edge_in_either_direction() -> None:
    topology = Topology((GATE, SHARDS, INGEST), EDGES)
    assert topology.peers_of("shard-0") == {"ingest", "gate"}
    assert topology.peers_of("gate") == {"shard-0", "shard-1"}


def test_children_come_in_start_order() -> None:
    topology = Topology((Group("db", (service("postgres"),)), GATE, SHARDS, INGEST))
    assert [c.name for c in topology.children] == [
        "postgres",
        "gate",
        "shard-0",
        "shard-1",
        "ingest",
    ]


@pytest.mark.parametrize(
    ("groups", "edges", "complaint"),
    [
        ((GATE, GATE), (), "two groups are called 'gate'"),
        ((group("x", "a"), group("y", "a")), (), "two children are called 'a'"),
        ((Group("x", ()),), (), "group 'x' has no children"),
        ((group("x", "a/b"),), (), "'a/b' cannot be an address"),
        ((group("x", "a.1"),), (), "'a.1' cannot be an address"),
        ((group("x", "a"), group("a", "b")), (), "'a' is a group and also a child"),
        ((GATE, Group("db", (service("pg"),))), (), "services start first: group 'db'"),
        ((Group("db", (service("pg"), child("a"))),), (), "mixes actors and services"),
        ((GATE,), (Edge("gate", "nobody", EdgeKind.TELL),), "no actor 'nobody'"),
        ((GATE, INGEST), (Edge("gate", "ingest", EdgeKind.TELL, messages=0),), "must hold"),
        ((GATE,), (Edge("gate", "gate", EdgeKind.TELL),), "leads to itself"),
        ((SHARDS,), (Edge("shard", "shard", EdgeKind.TELL),), "leads to itself"),
        ((GATE, SHARDS, INGEST), (EDGES[0], *EDGES), "is declared twice"),
    ],
)
def test_a_topology_that_contradicts_itself_is_refused(
    groups: tuple[Group, ...], edges: tuple[Edge, ...], complaint: str
) -> None:
    with pytest.raises(TopologyError, match=complaint):
        Topology(groups, edges)


def test_ask_edges_in_a_circle_are_refused_and_the_circle_is_named() -> None:
    groups = (group("a"), group("b"), group("c"))
    asks = [Edge(s, r, EdgeKind.ASK) for s, r in (("a", "b"), ("b", "c"))]
    Topology(groups, (*asks, Edge("c", "a", EdgeKind.TELL)))
    with pytest.raises(TopologyError, match="a -> b -> c -> a"):
        Topology(groups, (*asks, Edge("c", "a", EdgeKind.ASK)))


def test_one_pair_may_share_edges_of_several_kinds() -> None:
    edges = tuple(Edge("ingest", "gate", kind) for kind in EdgeKind)
    assert len(Topology((GATE, INGEST), edges).edges_of("gate")) == 3
