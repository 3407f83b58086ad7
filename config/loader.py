"""Reads the settings: ``default.toml``, then ``--config``, then the environment, then the flags."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from config.expected import expected
from config.rules import RULES
from config.settings import Settings, lookup
from config.units import parse_duration, parse_size

DEFAULTS: Final = Path(__file__).parent / "default.toml"
PREFIX: Final = "SKYSHARD_"
# Variables of the program that are no settings: crash points, and how the tests are run.
NOT_SETTINGS: Final = ("SKYSHARD_CRASH_", "SKYSHARD_REQUIRE_")
# Names that an AppView's environment has already; the settings' own variables win over them.
ALIASES: Final[Mapping[str, str]] = {
    "DATABASE_URL": "run.database_url",
    "MAX_CONCURRENT_USER_CREATIONS": "user_gate.max_concurrent_user_creations",
}
# What people try, as the file of settings cannot be named in the settings.
CONFIG_FILE: Final = "SKYSHARD_CONFIG"
USE_CONFIG: Final = "use --config FILE"
# From this likeness on (0 to 1) a name may be another one misspelt.
NEAR: Final = 0.75
SECRET: Final = frozenset({"run.database_url"})


class ConfigError(Exception):
    """A setting that is unknown or cannot be: one line that names the place and what to do."""


def _known() -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for section, struct in get_type_hints(Settings).items():
        for key, hint in get_type_hints(struct, include_extras=True).items():
            hints[f"{section}.{key}"] = hint
    return hints


KNOWN: Final[Mapping[str, Any]] = _known()


class _Layers:
    """The values so far, and the place each came from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}

    def put(self, key: str, value: object, place: str, *, strict: bool) -> None:
        """Checks one value against its setting's type and range, and keeps it."""
        shown = "" if key in SECRET else f" = {_show(value)}"
        try:
            value = _with_unit(key, value)
            self.values[key] = msgspec.convert(value, KNOWN[key], strict=strict)
        except msgspec.ValidationError as error:
            wanted = expected(key, KNOWN[key])
            raise ConfigError(f"{place}: {key}{shown} cannot be used: expected {wanted}") from error
        except ValueError as error:
            raise ConfigError(f"{place}: {key}{shown} cannot be used: {error}") from error
        self.places[key] = place


def load(
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
) -> Settings:
    """The settings of a run.

    ``flags`` maps a setting (``run.shards``) to the flag that gave it (``--shards``) and its value.
    Raises ConfigError for a file that cannot be read, an unknown name, a value of the wrong type or
    out of range, and values that cannot be together.
    """
    layers = _Layers()
    _read_file(layers, DEFAULTS)
    if config_file is not None:
        _read_file(layers, config_file)
    _read_environment(layers, environ or {})
    for key, (flag, value) in (flags or {}).items():
        layers.put(key, value, flag, strict=not isinstance(value, str))
    return _build(layers)


def _build(layers: _Layers) -> Settings:
    missing = [key for key in KNOWN if key not in layers.values]
    if missing:
        raise ConfigError(f"{DEFAULTS}: {missing[0]} is missing; install the program again")
    sections: dict[str, dict[str, Any]] = {}
    for key, value in layers.values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    settings = msgspec.convert(sections, Settings)
    for rule in RULES:
        problem = rule.check(settings)
        if problem is not None:
            places = dict.fromkeys(layers.places[key] for key in rule.keys)
            changed = [place for place in places if place != str(DEFAULTS)]
            raise ConfigError(f"{' and '.join(changed or places)}: {problem}")
    return settings


def _read_file(layers: _Layers, path: Path) -> None:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    for section, table in tree.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section} stands outside a section{_hint(section, KNOWN)}")
        sections = dict.fromkeys(key.partition(".")[0] for key in KNOWN)
        if section not in sections:
            hint = _hint(section, sections)
            raise ConfigError(f"{path}: there is no section [{section}]{hint}")
        for name, value in table.items():
            key = f"{section}.{name}"
            if key not in KNOWN:
                raise ConfigError(f"{path}: there is no setting {key}{_hint(key, KNOWN)}")
            layers.put(key, value, str(path), strict=True)


def _read_environment(layers: _Layers, environ: Mapping[str, str]) -> None:
    for name, key in ALIASES.items():
        if environ.get(name):
            layers.put(key, environ[name], name, strict=False)
    names = {variable(key): key for key in KNOWN}
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name.startswith(NOT_SETTINGS):
            continue
        if name == CONFIG_FILE:
            raise ConfigError(f"{name}: no setting has this environment variable; {USE_CONFIG}")
        if name not in names:
            hint = _hint(name, names)
            raise ConfigError(f"{name}: no setting has this environment variable{hint}")
        layers.put(names[name], value, name, strict=False)


def variable(key: str) -> str:
    """The environment variable of a setting: ``SKYSHARD_RUN__SHARDS`` for ``run.shards``."""
    return PREFIX + key.upper().replace(".", "__")


def show(settings: Settings) -> dict[str, object]:
    """Every setting and its value, for the log; secrets are left out."""
    return {key: "***" if key in SECRET else lookup(settings, key) for key in KNOWN}


def _with_unit(key: str, value: object) -> object:
    if isinstance(value, str) and value.strip()[-1:].isalpha():
        if key.endswith("_bytes"):
            return parse_size(value)
        if key.endswith("_seconds"):
            return parse_duration(value)
    return value


def _show(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(name: str, known: Mapping[str, Any]) -> str:
    """A question with the known name that is nearest, by its last part or by the whole of it."""
    (nearness, _), nearest = max((_nearness(name, each), each) for each in known)
    return f"; did you mean {nearest}?" if nearness >= NEAR else ""


def _nearness(name: str, other: str) -> tuple[float, float]:
    """How alike two names are, from 0 to 1: at best, and as a whole."""
    # What all names share says nothing.
    one, two = (text.removeprefix(PREFIX).replace("__", ".").lower() for text in (name, other))
    whole = _likeness(one, two)
    return max(whole, _likeness(one.rpartition(".")[2], two.rpartition(".")[2])), whole


def _likeness(one: str, two: str) -> float:
    return difflib.SequenceMatcher(None, one, two).ratio()
