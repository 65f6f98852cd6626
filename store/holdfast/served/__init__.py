"""Serving a key space: what a member, an edge replica and the simulator have in common."""
