"""Servers on loopback for tests: they speak the real protocols, and misbehave on demand."""
