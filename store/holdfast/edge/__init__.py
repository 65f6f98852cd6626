"""An edge replica: follows some prefixes of a cluster and serves them, with or without a network."""
