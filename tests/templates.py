"""Databases that are made once and copied for each test: copying files is far sooner done than
making some fifty tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

import psycopg

from actors.store.embedded import EmbeddedPostgres
from tests.prism import make_prism
from tests.writing import make_index

_numbers = itertools.count()


class Contents(Enum):
    """What a fresh database has in it."""

    NOTHING = "nothing"
    PRISM = "prism"
    """The tables of an AppView."""
    INDEX = "index"
    """Those of this program."""
    PRISM_INDEX = "prism_index"
    """Those of an AppView, brought up to date by this program."""

    def with_index(self) -> Contents:
        return {Contents.NOTHING: Contents.INDEX, Contents.PRISM: Contents.PRISM_INDEX}[self]


_EMPTY: Final = "template0"


class Templates:
    """The templates of one server, each made when it is first asked for."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._names = {Contents.NOTHING: _EMPTY}

    @contextmanager
    def fresh(self, contents: Contents = Contents.NOTHING) -> Iterator[str]:
        """The connection string of a fresh database, which is dropped at the end."""
        name = f"test_{next(_numbers)}"
        template = self._template(contents)
        try:
            yield self._copy(template, name)
        finally:
            with self._connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _template(self, contents: Contents) -> str:
        if contents not in self._names:
            conninfo = self._copy(_EMPTY, f"template_{contents.value}")
            if contents is not Contents.INDEX:
                make_prism(conninfo)
            if contents is not Contents.PRISM:
                make_index(conninfo)
            self._names[contents] = f"template_{contents.value}"
        return self._names[contents]

    def _copy(self, template: str, name: str) -> str:
        with self._connect() as connection:
            # The other way, through the log, costs several times as much where nothing is synced.
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode()
            )
        return self._server.conninfo(name)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._server.conninfo("postgres"), autocommit=True)
