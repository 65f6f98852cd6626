"""A deterministic simulator: whole clusters of real member cores on simulated disks, networks and clocks.

world.py       one queue of events, one generator of chance for each kind of choice, the trace
node.py        a process: a member's core and its watch hub, driven as the asyncio driver drives them
disk.py        what survives a crash; network.py  what arrives, when; mix.py, nemesis.py  what goes wrong, and when
clients.py     whoever asks; watchers.py, replicas.py  whoever follows
checker.py     what must hold after every step; oracle.py, linear.py  what must be true of what was answered
simulation.py  a run from its seed: faults, then healing; shrink.py  a failing run made small
mutants.py     production code broken on purpose, to show that the rest would notice
"""
