"""A deterministic simulator: whole clusters of real member cores on simulated disks, networks and clocks.

world.py       one queue of events, one random generator for each kind of choice, the trace
node.py        a process: a member's core and its watch hub, driven as the asyncio driver drives them
disk.py        disks and crashes; network.py  delivery of messages; mix.py, nemesis.py  which faults happen, and when
clients.py     clients; watchers.py, replicas.py  watches and edge replicas
checker.py     invariants after every step; oracle.py, linear.py  verification of the answers
simulation.py  a run from its seed: faults, then healing; shrink.py  minimizes a failing run
mutants.py     production code broken on purpose, to show that the checks notice
"""
