"""Logging: structured lines on standard error, as text for people or JSON for machines."""

import json
import logging
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
# What other people's loggers say at info is about themselves, not about the run.
_QUIET: Final = ("websockets", "pykka", "asyncio", "httpcore")

Event = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Logging:
    """Sets up logging in the process that calls it; picklable, so each child gets its own.

    ``colour`` is for text that ends on a terminal, also by way of a pipe.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    colour: bool = False

    def __call__(self, actor: str = "") -> None:
        configure(self.level, self.format, actor, colour=self.colour)


def configure(
    level: str,
    form: str,
    actor: str = "",
    stream: TextIO | None = None,
    *,
    colour: bool = False,
) -> None:
    """Sends structlog's lines and those of the standard library to ``stream`` (standard error).

    ``actor`` is on every line of the process, its threads included.
    """
    stream = stream or sys.stderr
    renderer = _Json() if form == "json" else _Text(colour=colour)

    def bind_actor(_logger: object, _method: str, event: Event) -> Event:
        if actor:
            event.setdefault("actor", actor)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        bind_actor,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))
    # It warns of the end of each pipeline that failed; what failed is raised, and dealt with there.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # A reader of standard error that goes away must not fill it with complaints about that.
    logging.raiseExceptions = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _Json:
    """One object a line, what happened first."""

    def __call__(self, _logger: object, _method: str, event: Event) -> str:
        first = {name: event.pop(name) for name in ("event", "level", "time") if name in event}
        return json.dumps({**first, **event}, default=str, ensure_ascii=False)


class _Text:
    """``time level actor event key=value``; nothing from outside starts a line of its own.

    What is None is not known, and left out.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: object, _method: str, event: Event) -> str:
        time = str(event.pop("time"))[:23]
        level = str(event.pop("level"))
        actor = str(event.pop("actor", "-"))
        text = _one_line(str(event.pop("event")))
        exception = event.pop("exception", None)
        event.pop("logger", None)
        name = f"{level:<7}"
        if self._colour:
            name = f"\x1b[{_COLOURS.get(level, '0')}m{name}\x1b[0m"
        known = ((key, value) for key, value in event.items() if value is not None)
        rest = "".join(f" {key}={_value(value)}" for key, value in known)
        line = f"{time}Z {name} {actor:<10} {text}{rest}"
        return f"{line}\n{exception}" if exception else line


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if not text or " " in text or '"' in text:
        return json.dumps(text, ensure_ascii=True)
    return _one_line(text)


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
