"""Measures clients against members that are frozen, slow or healthy. `benchmarks/client.py` is the command."""
