"""Explores all states of the protocols between cells: every order of requests and answers, each lost, late or twice."""
