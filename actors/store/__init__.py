"""PostgreSQL: the server that we run, the connections to it, and everything written through them.

The only package of the project that imports psycopg.
"""
