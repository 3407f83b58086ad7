"""The lexicon documents at hand, and the validation of records by them.

They are those that the package `lexrpc` carries, and those of a folder of the user's, which win.
Nothing of that package is imported, only its files are read. A collection's document is compiled
when its first record comes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from actors.atproto.lexicon import Document, Lexicon, LexiconError, RecordCheck
from actors.atproto.lexicon_checks import Problem
from actors.atproto.uri import is_nsid

log = structlog.get_logger()

PACKAGE: Final = "lexrpc"


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether records are validated: `on` drops what fails, `report` counts it and lets it pass.

    `folder` holds documents of the user's own.
    """

    mode: Literal["on", "off", "report"] = "off"
    folder: Path | None = None

    def load(self) -> "Lexicons | None":
        """The lexicons to validate by; None where it is off. Raises LexiconError."""
        return None if self.mode == "off" else Lexicons(self.folder)


class Lexicons:
    """Validates records by the documents of the package and of `folder`.

    Raises LexiconError where the package is not there or a document of `folder` cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = {nsid: path for nsid, path, _ in _documents(_package_folder())}
        own = {} if folder is None else _own_documents(folder)
        self._files |= {nsid: path for nsid, (path, _) in own.items()}
        self._lexicon = Lexicon(self._find)
        self._checks: dict[str, RecordCheck | None] = {}
        for path, document in own.values():
            try:
                self._lexicon.compile_all(document)
            except LexiconError as error:
                raise LexiconError(f"{path} cannot be used: {error}") from error

    def __iter__(self) -> Iterator[str]:
        """The NSIDs of all documents."""
        return iter(self._files)

    def validate(self, collection: str, rkey: str, data: dict[str, Any]) -> Problem | None:
        """What is wrong with a record; None where it is valid or its collection is not known."""
        try:
            check = self._checks[collection]
        except KeyError:
            # Names that no document has come from anybody: they are not kept.
            if collection not in self._files:
                return None
            check = self._checks[collection] = self._compile(collection)
        return None if check is None else check(rkey, data)

    def document(self, nsid: str) -> Document | None:
        """The document of an NSID. Raises LexiconError where its file cannot be read."""
        return self._find(nsid)

    def _compile(self, collection: str) -> RecordCheck | None:
        try:
            return self._lexicon.record(collection)
        except LexiconError as error:
            # Its file was changed or removed meanwhile. That is no fault of the record.
            log.warning(
                "not validated: its lexicon is of no use", nsid=collection, error=str(error)
            )
            return None

    def _find(self, nsid: str) -> Document | None:
        path = self._files.get(nsid)
        return None if path is None else _read(path)


def _package_folder() -> Path:
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise LexiconError(
            f"the package {PACKAGE}, which carries the lexicons, is not installed: "
            "run 'make install', or switch validation off with lexicon.mode"
        ) from error
    return Path(str(package.locate_file(f"{PACKAGE}/lexicons")))


def _documents(folder: Path) -> Iterator[tuple[str, Path, Document]]:
    """Every document under a folder, by the id it gives itself."""
    for path in sorted(folder.rglob("*.json")):
        document = _read(path)
        nsid = document.get("id")
        if not isinstance(nsid, str) or not is_nsid(nsid):
            raise LexiconError(f"{path} cannot be used: a lexicon document needs an NSID as its id")
        yield nsid, path, document


def _own_documents(folder: Path) -> dict[str, tuple[Path, Document]]:
    if not folder.is_dir():
        raise LexiconError(f"{folder}, the folder of your own lexicons, is not a folder")
    own: dict[str, tuple[Path, Document]] = {}
    for nsid, path, document in _documents(folder):
        if nsid in own:
            raise LexiconError(f"{path} and {own[nsid][0]} both define {nsid}: remove one")
        own[nsid] = path, document
    return own


def _read(path: Path) -> Document:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LexiconError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise LexiconError(f"{path} cannot be used: a lexicon document is an object")
    return document
