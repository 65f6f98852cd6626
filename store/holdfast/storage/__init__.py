"""What survives a crash: the log of our own, the state in RocksDB, and which node this is."""
