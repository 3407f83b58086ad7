"""Benchmarks, and the parts that tests and benchmarks share: a loopback relay, a network."""
