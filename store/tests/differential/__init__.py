"""Ours and a real etcd 3.6 side by side: the same requests to both, and the whole answers compared."""
