"""A prefix that is replicated along a chain of simulated cells."""
