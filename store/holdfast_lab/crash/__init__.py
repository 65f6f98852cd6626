"""A crash tester: real servers on loopback, killed, frozen, cut off, out of room and without power, under load.

cluster.py     the servers, each with a disk of its own; proxy.py  the way between them, which can be cut
powercut.c/.py what a power cut leaves of files that were written and not synced
faults.py      what goes wrong, and when; clients.py  whoever asks, and what they were told
judge.py       whether that was right, by the checker that the simulator uses; run.py  all of it for a set time
"""
