"""The consensus core: no I/O, no clock, no randomness of its own. See `core.Raft`."""
