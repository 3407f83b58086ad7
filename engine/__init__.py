"""The actor runtime: actors in processes of their own that exchange messages over ZeroMQ.

It knows nothing of what the actors do. ``engine/README.md`` is the page of promises;
``engine/example.py`` is a whole program of twenty lines.
"""
