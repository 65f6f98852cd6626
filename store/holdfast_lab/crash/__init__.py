"""A crash tester: real servers on loopback, killed, frozen, cut off, out of room and without power, under load.

cluster.py     the servers, each with a disk of its own; proxy.py  the connections between them, which can be cut
powercut.c/.py power cuts: undoes changes of files that were not synced
faults.py      the faults; clients.py  the clients, which record the answers that they get
judge.py       verifies the answers with the simulator's checker; run.py  runs all of this for a set time
"""
