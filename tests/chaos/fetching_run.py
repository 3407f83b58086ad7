"""The program with its fetcher, before servers on loopback: settings, and what is compared."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg

from bench.network import Network
from tests import tables
from tests.program import Program
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.servers.network import synthetic_documents
from tests.servers.pds import Pds

ON = {
    "SKYSHARD_RESOLVER__ENABLED": "true",
    "SKYSHARD_RESOLVER__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_FETCHER__ENABLED": "true",
    "SKYSHARD_FETCHER__PATIENCE_SECONDS": "1",
    "SKYSHARD_FETCHER__WHOLE_ACCOUNTS": "true",
    "SKYSHARD_FETCHER__RETRY_MIN_SECONDS": "1",
    "SKYSHARD_FETCHER__RETRY_MAX_SECONDS": "2",
    "SKYSHARD_NETWORK__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_NETWORK__ALLOW_PRIVATE_HOSTS": "true",
    "SKYSHARD_LEXICON__MODE": "on",
}


@contextmanager
def served(network: Network, pds: Pds, settings: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The server of all accounts of a network, with a directory and a name server; the settings of
    a program that asks them.
    """
    with pds, DnsServer() as dns:
        documents = synthetic_documents(network, pds.url)
        with PlcDirectory(documents.items()) as plc:
            yield {
                **settings,
                "SKYSHARD_NETWORK__PLC_URL": plc.url,
                "SKYSHARD_NETWORK__NAMESERVERS": dns.nameserver,
            }


def comparable(of: tables.Tables) -> tables.Tables:
    """Without what depends on how a record came: its commit, which is also the time of those that
    have none of their own; events of before; notifications of the past. `tests.convergence` leaves
    out less.
    """
    left = tables.without(of, "notifications", "engine_accounts")
    return {
        name: {
            key: {
                column: value
                for column, value in row.items()
                if not column.startswith("commit_")
                and column != "engine_joined_via"
                and (name, column) != ("generic_records", "created_at")
            }
            for key, row in rows.items()
        }
        for name, rows in left.items()
    }


def differences(database: str, expected: tables.Tables) -> list[str]:
    """What differs in the comparable tables of a database."""
    try:
        return tables.differences(expected, comparable(tables.read_tables(database)))
    except psycopg.errors.UndefinedTable:
        return ["no tables yet"]


def stop(running: Program) -> None:
    """Have a program end in good order."""
    running.child.send_signal(signal.SIGTERM)
    assert running.wait() == 0, running.tail()
