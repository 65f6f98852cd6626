"""Power cuts at replicas: does a replica start again, without a network, and is what it then shows right?

authority.py  the cluster that is followed: one member, what is written there, and its true history
replica.py    one replica as a process, and what it shows; life.py  its starts, cuts and restarts
run.py        several of them side by side until there were so many cuts
"""
