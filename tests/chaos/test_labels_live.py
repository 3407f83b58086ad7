"""The whole program beside a labeler: labels come while it indexes, and its actor may die."""

from pathlib import Path

import psycopg

from actors.capture import DEMO
from tests.corpus.files import label_frames, oracle
from tests.program import program, wait_until
from tests.servers.directory import PlcDirectory
from tests.servers.labeler import Labeler
from tests.servers.network import recorded_documents

SRC = "did:plc:6rccq36mzkt43saroyej2tyx"


def test_a_labeler_is_read_beside_the_firehose_and_its_table_survives_a_kill(
    database: str, tmp_path: Path
) -> None:
    with Labeler(label_frames()) as labeler, PlcDirectory() as directory:
        directory.documents.update(recorded_documents(labeler=labeler.url))
        labeler.close_after = 50
        environment = {
            "SKYSHARD_LABELS__LABELERS": SRC,
            "SKYSHARD_NETWORK__PLC_URL": directory.url,
            "SKYSHARD_NETWORK__ALLOW_PRIVATE_HOSTS": "true",
        }
        arguments = ("--source", str(DEMO), "--database-url", database, "--shards", "1")
        with (
            program(tmp_path, *arguments, environment=environment) as running,
            psycopg.connect(database, autocommit=True) as connection,
        ):
            # The kill comes anywhere: at its start, or amid its labels.
            running.kill("label_client")
            wait_until(lambda: _cursor(connection) == 80, "the end of the labels", running, 200.0)
    found = _labels(database)
    assert found == {
        (row["uri"], row["cid"], row["val"], row["cts"]) for row in oracle("ozone_label")
    }


def _cursor(connection: psycopg.Connection[tuple[object, ...]]) -> object:
    try:
        row = connection.execute("SELECT cursor FROM engine_labelers").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else row[0]


def _labels(database: str) -> set[tuple[object, ...]]:
    with psycopg.connect(database) as connection:
        return set(
            connection.execute(
                "SELECT subject, coalesce(cid, ''), val, cts FROM labels WHERE sig IS NOT NULL"
            ).fetchall()
        )
