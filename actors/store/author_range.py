"""The records of one author by their keys, on a database of any collation."""


def author_range(column: str, did: str) -> str:
    """Return the SQL condition that `column` holds the at-uri of a record of `did`, an expression
    (which it names twice).

    The order of bytes is asked for: under the collation of another language signs count little, and
    the bounds would enclose others' records, or not all of this one's. An index in that order
    serves it: every key of a database of our own, and those that `migrate` makes elsewhere. The
    bounds enclose what begins with the repository's address and a slash, as '0' comes right after
    the slash.
    """
    return (
        f"({column} COLLATE \"C\" >= 'at://' || {did} || '/'"
        f" AND {column} COLLATE \"C\" < 'at://' || {did} || '0')"
    )
