"""The revisioned key space: how Put, DeleteRange and Txn change it, and how it is read at any revision."""
