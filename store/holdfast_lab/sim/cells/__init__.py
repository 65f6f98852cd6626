"""Cells, registers and transactions between them, in virtual time: the library's own code, over simulated clusters."""
