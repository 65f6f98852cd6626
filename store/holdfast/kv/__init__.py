"""The revisioned key space: what a Put, DeleteRange or Txn does to it, and how it is read at any revision."""
