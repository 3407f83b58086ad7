"""Numbers of rows that come from a sequence, and how many of them are left.

On a database of our own they have 64 bits. An AppView's tables may number their rows in 32, and a
table that gains a row for nearly every event uses those up in months.
"""

from typing import Any, Final

from psycopg import Connection

_USED_SQL: Final = """
    SELECT ((coalesce(s.last_value, s.start_value)::numeric - s.min_value)
        / (least(s.max_value, CASE a.atttypid WHEN 'integer'::regtype THEN 2147483647
           ELSE 9223372036854775807 END)::numeric - s.min_value))::float8
    FROM pg_attribute a JOIN pg_sequences s
        ON format('%%I.%%I', s.schemaname, s.sequencename)::regclass
            = pg_get_serial_sequence(%s, a.attname)::regclass
    WHERE a.attrelid = %s::regclass AND a.attname = 'id'
"""


def used(connection: Connection[Any], table: str) -> float:
    """What part of the numbers of a table's column `id` is used up, 0 to 1.

    0 where its numbers come from no sequence of its own.
    """
    row = connection.execute(_USED_SQL, [table, table]).fetchone()
    return 0.0 if row is None else float(row[0])
