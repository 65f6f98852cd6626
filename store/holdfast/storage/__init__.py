"""Everything that must survive a crash: the log (in a format of its own), the state in RocksDB, the node's identity."""
