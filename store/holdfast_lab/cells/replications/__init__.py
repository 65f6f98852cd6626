"""A prefix that is replicated along a chain of clusters: how fast, how far behind, and whether anything is torn."""
