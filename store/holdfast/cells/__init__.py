"""Agreement between clusters: registers (CASPaxos, each acceptor a whole cluster), and transactions decided by them."""
