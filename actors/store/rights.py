"""What a role must be allowed to do in the database, and whether it is."""

from typing import Any, Final

from psycopg import Connection

from actors.store.refusal import DatabaseRefused, Reason
from actors.store.schema import TABLES

NEEDED: Final = (
    "grant it SELECT, INSERT, UPDATE and DELETE on all tables, and USAGE on the schema and on all"
    " sequences; it needs CREATE on the schema only where tables are missing (or run"
    " `run.py migrate` as a role that has it)"
)

_LACKING_SQL: Final = (
    "SELECT current_user::text, c.relname::text FROM pg_class c"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)"
    " AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
    " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))"
    " UNION ALL SELECT current_user::text, s.relname::text FROM pg_class c"
    " JOIN pg_depend d ON d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass"
    " AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
    " JOIN pg_class s ON s.oid = d.objid"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)"
    # It fails for what is no sequence, and conditions with AND are tried in any order.
    " AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END ORDER BY 2"
)


def demand_rights(connection: Connection[Any]) -> None:
    """Raise DatabaseRefused unless this role may read and write every table there is."""
    names = list(TABLES)
    rows = connection.execute(_LACKING_SQL, [names, names]).fetchall()
    if rows:
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        raise DatabaseRefused(
            Reason.NO_RIGHTS,
            f"the role {rows[0][0]} may not use {rows[0][1]}{more} of this database: {NEEDED}",
        )
