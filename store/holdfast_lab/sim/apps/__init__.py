"""Applications that use the recipes, in the simulated world: the recipes' own code on simulated members.

Applications have clocks of their own, are frozen for longer than their sessions live, crash, and give up waiting.
"""
