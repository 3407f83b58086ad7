"""The reference indexer after the recorded network, and the special cases by name."""

from functools import cache

from tests.corpus import files
from tests.reference import Reference
from tests.reference_tables import Tables


@cache
def reference() -> Reference:
    """The reference indexer after the whole capture."""
    result = Reference()
    for frame in files.demo_frames():
        result.frame(frame)
    return result


@cache
def tables() -> Tables:
    """The tables of the reference indexer after the whole capture."""
    return reference().tables()


def special(*names: str) -> set[str]:
    """The uris of special cases by name."""
    by_name = files.document("special")["special"]
    return {uri for name in names for uri in by_name[name]}


def life(*names: str) -> set[str]:
    """DIDs (or uris) of accounts with a life."""
    by_name = files.document("special")["life"]
    return {by_name[name] for name in names}


def author(uri: str) -> str:
    """The DID in an at-uri."""
    return uri.split("/")[2]
