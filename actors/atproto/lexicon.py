"""Lexicons: documents that say what the records of a collection look like, compiled to checks.

Source: the atproto specification, "Lexicon". Three questions it leaves to us:

* A reference to a definition that nobody has lets everything but null pass: what cannot be judged
  is not refused.
* What an open union holds under a `$type` that it does not name passes, known elsewhere or not.
* The value of a token is its name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from actors.atproto import lexicon_checks as checks
from actors.atproto.errors import shorten
from actors.atproto.lexicon_checks import Check, Problem
from actors.atproto.lexicon_formats import FORMATS, record_key

Document = Mapping[str, Any]
RecordCheck = Callable[[str, Any], Problem | None]
"""Takes the record key and the record; gives what is wrong, or None."""

VERSION: Final = 1
# What a document may define that no value of a record is an instance of.
_NO_VALUES: Final = frozenset(
    ("params", "permission", "permission-set", "procedure", "query", "space", "subscription")
)


class LexiconError(ValueError):
    """A document that cannot be compiled; the message says which definition, and why."""


class Lexicon:
    """Compiles definitions when they are first asked for, each once.

    `find` gives the document of an NSID, or None where there is none.
    """

    def __init__(self, find: Callable[[str], Document | None]) -> None:
        self._find = find
        # None: being compiled, further up the stack.
        self._checks: dict[str, Check | None] = {}

    def record(self, nsid: str) -> RecordCheck | None:
        """The check of a collection's records; None where no document defines them.

        Raises LexiconError.
        """
        document = self._find(nsid)
        main = None if document is None else _definitions(document, nsid).get("main")
        if main is None or main.get("type") != "record":
            return None
        kind = main.get("key")
        is_key = record_key(kind) if isinstance(kind, str) else None
        if is_key is None:
            raise LexiconError(f"{nsid}: {kind!r} is no kind of record keys")
        matches, check = is_key, self._named(nsid, "main")

        def check_record(rkey: str, record: Any) -> Problem | None:
            if matches(rkey):
                return check(record)
            return Problem("", f"the record key must be {kind}, not {shorten(rkey)}")

        return check_record

    def compile_all(self, document: Document) -> None:
        """Compile what a document defines, to find its faults. Raises LexiconError."""
        nsid = document.get("id")
        if not isinstance(nsid, str):
            raise LexiconError("a lexicon document needs an id")
        for name, schema in _definitions(document, nsid).items():
            if schema.get("type") not in _NO_VALUES:
                self._named(nsid, name)
        self.record(nsid)

    def _named(self, nsid: str, name: str) -> Check:
        """The check of a definition that a document has, or is thought to have."""
        place = f"{nsid}#{name}"
        try:
            check = self._checks[place]
        except KeyError:
            pass
        else:
            return self._later(place) if check is None else check
        document = self._find(nsid)
        schema = None if document is None else _definitions(document, nsid).get(name)
        if schema is None:
            check = checks.anything
        else:
            self._checks[place] = None
            try:
                check = self._compile(schema, nsid, place)
            except BaseException:
                del self._checks[place]
                raise
        self._checks[place] = check
        return check

    def _later(self, place: str) -> Check:
        """A check that is looked up when it is used: definitions may contain themselves."""
        found = self._checks

        def check_later(value: Any) -> Problem | None:
            check = found[place]
            assert check is not None
            return check(value)

        return check_later

    def _compile(self, schema: Any, nsid: str, place: str) -> Check:
        """The check of a schema that stands at `place` in the document `nsid`."""
        if not isinstance(schema, dict):
            raise LexiconError(f"{place}: a schema must be an object")
        kind = schema.get("type")
        check = self._of_type(kind, schema, nsid, place)
        if (wanted := schema.get("const")) is not None:
            check = checks.both(check, checks.constant(wanted))
        if (allowed := schema.get("enum")) is not None:
            check = checks.both(check, checks.one_of(_list(allowed, f"{place}: enum")))
        return check

    def _of_type(self, kind: object, schema: dict[str, Any], nsid: str, place: str) -> Check:
        def number(name: str) -> int | None:
            value = schema.get(name)
            if value is not None and type(value) is not int:
                raise LexiconError(f"{place}: {name} must be an integer")
            return value

        match kind:
            case "null":
                return checks.nothing
            case "boolean":
                return checks.boolean
            case "integer":
                return checks.integer(number("minimum"), number("maximum"))
            case "string":
                return _string(schema.get("format"), number, place)
            case "bytes":
                return checks.byte_string(number("minLength"), number("maxLength"))
            case "cid-link":
                return checks.link
            case "blob":
                return checks.blob
            case "unknown":
                return checks.unknown
            case "token":
                return checks.constant(place.removesuffix("#main"))
            case "array":
                item = self._compile(schema.get("items"), nsid, f"{place}/items")
                return checks.array(item, number("minLength"), number("maxLength"))
            case "object":
                return self._object(schema, nsid, place)
            case "record":
                return self._compile(schema.get("record"), nsid, place)
            case "ref":
                return self._named(*_target(schema.get("ref"), nsid, place))
            case "union":
                return self._union(schema, nsid, place)
            case _:
                raise LexiconError(f"{place}: a value cannot be of type {kind!r}")

    def _object(self, schema: dict[str, Any], nsid: str, place: str) -> Check:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise LexiconError(f"{place}: properties must be an object")
        compiled = {
            name: self._compile(inner, nsid, f"{place}/{name}")
            for name, inner in properties.items()
        }
        for name in _list(schema.get("nullable", []), f"{place}: nullable"):
            if name in compiled:
                compiled[name] = checks.nullable(compiled[name])
        return checks.structure(compiled, _list(schema.get("required", []), f"{place}: required"))

    def _union(self, schema: dict[str, Any], nsid: str, place: str) -> Check:
        variants = {}
        for ref in _list(schema.get("refs"), f"{place}: refs"):
            target, name = _target(ref, nsid, place)
            check = self._named(target, name)
            variants[f"{target}#{name}"] = check
            if name == "main":
                # Written with or without its name: both are found in records.
                variants[target] = check
        return checks.union(variants, closed=schema.get("closed") is True)


def _string(form: object, number: Callable[[str], int | None], place: str) -> Check:
    limits = [number(name) for name in ("minLength", "maxLength", "minGraphemes", "maxGraphemes")]
    check: Check = checks.any_string
    if any(limit is not None for limit in limits):
        check = checks.sized_string(*limits)
    if form is None:
        return check
    if not isinstance(form, str) or form not in FORMATS:
        raise LexiconError(f"{place}: {form!r} is no format of strings")
    formatted = checks.string_of(form, FORMATS[form])
    return formatted if check is checks.any_string else checks.both(check, formatted)


def _definitions(document: Document, nsid: str) -> dict[str, dict[str, Any]]:
    """What a document defines, by name."""
    definitions = document.get("defs")
    if document.get("lexicon") != VERSION or document.get("id") != nsid:
        raise LexiconError(f"{nsid}: not a lexicon document of version {VERSION} with this id")
    if not isinstance(definitions, dict) or not all(
        isinstance(schema, dict) for schema in definitions.values()
    ):
        raise LexiconError(f"{nsid}: defs must be an object of objects")
    return definitions


def _target(ref: object, nsid: str, place: str) -> tuple[str, str]:
    """The document and the name that a reference means."""
    if not isinstance(ref, str) or not ref:
        raise LexiconError(f"{place}: a reference must be a string")
    document, _, name = ref.partition("#")
    return document or nsid, name or "main"


def _list(value: object, place: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise LexiconError(f"{place} must be an array")
    return value
