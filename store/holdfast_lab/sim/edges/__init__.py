"""Simulated edge replicas that follow members and each other."""
