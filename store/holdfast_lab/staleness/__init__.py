"""Reads at real replicas, also below each other, under faults: is each answer as fresh as it says, and as was asked?

tree.py     members, relays and the replicas below them, as processes; links.py  the connections between them
clients.py  one writer for each key, and the readers; calls.py  how these ask
faults.py   what is frozen, killed, cut off and slowed down meanwhile
judge.py    checks each answer as it comes; run.py  runs all of this until so many reads are answered
"""
