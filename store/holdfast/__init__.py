"""holdfast: a Raft-replicated configuration store with edge replicas, speaking the etcd v3 API."""

__version__ = "0.2.0"
