"""A deterministic simulator: whole clusters of real member cores on a simulated disk, network and clock."""
