"""A bank with accounts in several real clusters: money is moved between them, and all kinds of processes are killed."""
