"""One member of the cluster: a pure core, and the driver that gives it a disk, sockets and a clock."""
