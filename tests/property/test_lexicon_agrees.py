"""Beside lexrpc's own validator: the same verdict on every record, or a difference explained here.

Compared is what is in a record: lexrpc looks at no record keys. It is given links and bytes as it
wants them.
"""

import copy
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pytest
from lexrpc.base import Base, ValidationError

from actors.atproto import commit, datamodel, frames
from actors.atproto.events import Commit
from actors.atproto.lexicon_checks import Problem
from actors.lexicons import Lexicons
from bench.lexicon import for_lexrpc
from bench.network import Network
from tests.corpus import files

LINK = {"$link": "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"}
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
KEYS = {"tid": "3mbd355eai62b", "any": "a", "nsid": "a.b.c", "literal:self": "self"}

Path = tuple[str | int, ...]
Record = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A record that one refuses, with the reason, and the other takes."""

    collection: str
    record: Record
    ours: Problem | None
    theirs: str | None

    @property
    def value(self) -> Any:
        """What is at the path that we refuse."""
        found: Any = self.record
        for step in self.ours.path.split("/") if self.ours is not None else ():
            found = found[int(step)] if isinstance(found, list) else found.get(step)
        return found


def refused(reason: str, value: str = "") -> Callable[[Difference], bool]:
    """We refuse, for this reason and (where it is a string) such a value."""

    def explains(found: Difference) -> bool:
        if found.ours is None or re.search(reason, found.ours.reason) is None:
            return False
        return not value or re.search(value, found.value) is not None

    return explains


def taken(reason: str) -> Callable[[Difference], bool]:
    """Lexrpc refuses, with these words."""
    return lambda found: found.theirs is not None and re.search(reason, found.theirs) is not None


def names_main(value: Any) -> bool:
    """Whether some `$type` in a value ends in `#main`."""
    match value:
        case {"$type": str(kind)} if kind.endswith("#main"):
            return True
        case dict():
            return any(map(names_main, value.values()))
        case list():
            return any(map(names_main, value))
        case _:
            return False


# The types that the changes below put where the lexicon names others.
ELSEWHERE: Final = (
    "app.bsky.feed.like",
    "app.bsky.embed.images",
    "com.atproto.label.defs#selfLabel",
)

EXPLAINED: Final[dict[str, Callable[[Difference], bool]]] = {
    "lexrpc asks of a blob only that it is an object": refused(
        "^must be (a blob|a link|'blob'|a CID|the type of the file|the size of the file)"
    ),
    "lexrpc takes a time without seconds": refused("no datetime", r"T[0-9]{2}:[0-9]{2}Z$"),
    "lexrpc takes an offset of minus zero": refused("no datetime", "-00:00$"),
    "lexrpc takes hours of an offset that no day has": refused("no datetime", r"\+99:00$"),
    "lexrpc takes a string for a union of objects": refused("an object with a .type, not a string"),
    "lexrpc takes a CID of version 0": refused("no cid", "^Qm"),
    "lexrpc takes a CID of any length": refused("no cid", "^.{257}"),
    "lexrpc takes anything after the hyphen of a language": refused(
        "no language", "^[a-z]{2}-[a-zA-Z]$"
    ),
    "lexrpc takes an object where an array holds references to strings": refused(
        "^must be a string, not (an object|a blob|a link|bytes)$"
    ),
    "lexrpc takes a record key of any length in an at-uri": refused("no at-uri", r"/k{513}$"),
    "lexrpc takes a DID that ends in a percent sign": refused("no (did|at-uri)", "%$"),
    "lexrpc takes slashes alone after the scheme of a uri": refused("no uri", "^https:///$"),
    "lexrpc takes spaces other than the common one in a uri": refused("no uri", "\n|\u2003"),
    "a map that looks like a link is none to lexrpc, which knows links by their type": refused(
        "^must be an object, not (a link|bytes)$"
    ),
    "lexrpc does not know a definition by its whole name, with #main": lambda found: (
        found.theirs is None and names_main(found.record)
    ),
    "lexrpc wants the name of the reference where an array holds references to strings": taken(
        r"ref (labelValues|reasonTypes) with value .*: is not "
    ),
    "lexrpc checks what a union does not name, where it knows it": taken(
        rf"^in ({'|'.join(map(re.escape, ELSEWHERE))}), union [a-zA-Z]+ with value "
    ),
    "lexrpc checks a blob where a union stands, although none may name it": taken("^in blob, "),
    "lexrpc takes only small letters in the handle of an at-uri": taken(
        r"at://Alice\.test/a\.b\.c/d is invalid for format at-uri"
    ),
    "lexrpc takes only small letters in the authority of an NSID": taken(
        r"at://did:plc:abc/A\.b\.c/d is invalid for format at-uri"
    ),
    "lexrpc takes only small letters in a language": taken(
        "value `'[A-Z-]{2,5}'`: .* is invalid for format language"
    ),
    "lexrpc takes no language of more than three letters, which may come to be": taken(
        "value `'[a-z]{4,8}'`: .* is invalid for format language"
    ),
    "lexrpc takes no language for private use alone": taken("x-y is invalid for format language"),
}

STRINGS: Final = [
    "",
    "x",
    "a b",
    *("x" * length for length in (64, 65, 300, 301, 640, 641, 3000, 3001)),
    *(FAMILY * count for count in (30, 64, 65, 167)),
    "é" * 300,
    "é" * 301,
    "e\u0301" * 300,
    "2026-01-01T00:00:00.000Z",
    "2026-01-01T00:00:00+05:30",
    "2026-01-01T00:00:00-00:00",
    "2026-01-01T00:00:00+99:00",
    "2026-01-01T00:00:00",
    "2026-01-01T00:00Z",
    "2026-01-01t00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "2026-01-01",
    "did:plc:abc",
    "did:plc:",
    "did:plc:abc%",
    "alice.test",
    "Alice.Test",
    "alice",
    "at://did:plc:abc",
    "at://did:plc:abc/a.b.c",
    "at://did:plc:abc/a.b.c/d",
    "at://did:plc:abc/A.b.c/d",
    "at://did:plc:abc/a.b.c/d/e",
    "at://did:plc:abc/a.b.c/..",
    "at://did:plc:abc/a.b.c/d#e",
    "at://did:plc:abc/space/a.b.c/d",
    f"at://did:plc:abc/a.b.c/{'k' * 513}",
    "at://Alice.test/a.b.c/d",
    "at://alice.test/a.b.c/d",
    LINK["$link"],
    "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n",
    "b" * 257,
    "https://example.com",
    "https://",
    "https:///",
    "https://example.com\n",
    "https://exam\u2003ple.com",
    "a_b:c",
    "mailto:a@example.com",
    "en",
    "EN",
    "pt-BR",
    "en-a",
    "en-",
    "x-y",
    "3mbd355eai62b",
    "self",
    "a.b.c",
    "#x",
    *ELSEWHERE,
]
VALUES: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1 << 40,
    [],
    ["x"],
    [None],
    {},
    {"a": 1},
    {"$type": "com.example.unknown"},
    {"$type": ""},
    {"$type": "blob"},
    {"$type": 1},
    *({"$type": kind} for kind in ELSEWHERE),
    {"$bytes": "AAAA"},
    LINK,
    {"$link": "no"},
    {"$type": "blob", "ref": LINK, "mimeType": "image/png", "size": 1},
]


@cache
def ours() -> Lexicons:
    return Lexicons()


@cache
def theirs() -> Base:
    # What refers to a document that nobody has is to pass there as it does here.
    return Base(require_lexicons=False)


@cache
def key_of(collection: str) -> str:
    """A record key that the collection takes."""
    document = ours().document(collection)
    assert document is not None
    return KEYS[document["defs"]["main"]["key"]]


def compared(collection: str, record: Record) -> Difference | None:
    """The difference that a record makes, if any."""
    problem = ours().validate(collection, key_of(collection), record)
    said: str | None = None
    try:
        theirs().validate(collection, "record", for_lexrpc(record))
    except ValidationError as error:
        said = str(error)
    except (AttributeError, TypeError) as error:
        # It stumbles over a $type that is no string, which is a refusal too.
        said = repr(error)
    if (problem is None) is (said is None):
        return None
    return Difference(collection, record, problem, said)


def explanation(found: Difference) -> str:
    """The name of what explains a difference. Fails where nothing does."""
    for name, explains in EXPLAINED.items():
        if explains(found):
            return name
    raise AssertionError(f"not explained: {found}")


def records(stream: Iterator[bytes]) -> Iterator[tuple[str, Record]]:
    """Collection and content of the records of a stream that have a lexicon."""
    for frame in stream:
        event = frames.decode(frame)
        if isinstance(event, Commit):
            for op in commit.open_commit(event).ops:
                if op.record is not None and ours().document(op.collection) is not None:
                    yield op.collection, datamodel.to_data(op.record)[0]


def shape(value: Any) -> str:
    """What kind of record it is: names, types, and what it says in `$type`."""
    match value:
        case dict():
            inner = sorted(f"{key}:{shape(item)}" for key, item in value.items())
            return f"{{{','.join(inner)} {value.get('$type')}}}"
        case list():
            return f"[{','.join(sorted(set(map(shape, value))))}]"
        case _:
            return type(value).__name__


@cache
def shapes() -> tuple[tuple[str, Record], ...]:
    """One record of each shape of the recorded network."""
    found = {(name, shape(data)): (name, data) for name, data in records(iter(files.demo_frames()))}
    return tuple(found.values())


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every place in a record but its top, and what is there; of an array the first two."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value[:2]))
    for step, item in inner:
        yield (*path, step), item
        yield from places(item, (*path, step))


def changed(record: Record, path: Path, change: Callable[[Any, Any], None]) -> Record:
    """A copy of a record with a change made to what holds the last step of a path."""
    record = copy.deepcopy(record)
    holder: Any = record
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return record


def changes(value: Any, chance: random.Random | None = None) -> list[Any]:
    """What may stand where `value` stood; all there is, or a choice of it."""
    near: list[Any] = []
    match value:
        case str():
            near = [*STRINGS, value + "#main", value + "/", value + " ", value[:-1], value.upper()]
        case dict():
            near = [
                {**value, "extra": 1},
                {**value, "$type": "com.example.unknown"},
                {"$type": f"{value.get('$type')}#main"},
            ]
        case list():
            near = [value * 60, [*value, None], value[:1]]
    others = STRINGS[:3] if chance is None else STRINGS
    everything = [*VALUES, *near, *others]
    return everything if chance is None else chance.sample(everything, 3)


def put(value: Any) -> Callable[[Any, Any], None]:
    def change(holder: Any, step: Any) -> None:
        holder[step] = copy.deepcopy(value)

    return change


def remove(holder: Any, step: Any) -> None:
    del holder[step]


def test_every_record_of_the_networks_is_judged_alike_or_the_difference_is_explained() -> None:
    seen = 0
    found: Counter[str] = Counter()
    synthetic = Network(seed=9, users=100, sign=False).events(2000)
    for stream in (iter(files.demo_frames()), synthetic):
        for collection, record in records(stream):
            seen += 1
            difference = compared(collection, record)
            if difference is not None:
                found[explanation(difference)] += 1
    assert seen > 5000
    assert set(found) == {
        "lexrpc wants the name of the reference where an array holds references to strings"
    }


def test_every_change_to_a_record_is_judged_alike_or_the_difference_is_explained() -> None:
    seen = 0
    found: Counter[str] = Counter()
    for collection, record in shapes():
        for path, value in places(record):
            made = [changed(record, path, put(other)) for other in changes(value)]
            for other in (*made, changed(record, path, remove)):
                seen += 1
                difference = compared(collection, other)
                if difference is not None:
                    found[explanation(difference)] += 1
    assert seen > 20_000
    assert set(found) == set(EXPLAINED), "an explanation that explains nothing can go"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_records_with_several_changes_are_judged_alike_or_the_difference_is_explained(
    seed: int,
) -> None:
    chance = random.Random(seed)
    everything = list(records(iter(files.demo_frames())))
    for _ in range(5000):
        collection, record = chance.choice(everything)
        for _ in range(chance.randint(1, 3)):
            path, value = chance.choice(list(places(record)) or [((), None)])
            if path:
                record = changed(record, path, put(chance.choice(changes(value, chance))))
        difference = compared(collection, record)
        if difference is not None:
            explanation(difference)
