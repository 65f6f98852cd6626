"""Hand-overs of a lock between real processes that are frozen and killed, on real servers that are killed."""
