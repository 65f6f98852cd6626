"""Agreement between clusters: registers (CASPaxos, each acceptor a whole cluster), and transactions decided by them.

async with cells.connect({"eu": client.connect(…), "us": client.connect(…), "ap": client.connect(…)}) as them:
    await them.register("primary").change(lambda before: before or b"eu")
"""

from holdfast.cells.cells import Cells, connect
from holdfast.cells.errors import (
    CellsUnavailable,
    LeaseLost,
    NotSetUp,
    QueueFull,
    ReplicationLoop,
    ReplicationRefused,
    TransactionAborted,
)
from holdfast.cells.lease import Holder, Lease, LeaseRegister
from holdfast.cells.queue import Lag, Message, Queue
from holdfast.cells.register import Register
from holdfast.cells.replication import Replication, ReplicationLag
from holdfast.cells.survey import Survey
from holdfast.cells.transaction import CellsTxn, Result

__all__ = [
    "Cells",
    "CellsTxn",
    "CellsUnavailable",
    "Holder",
    "Lag",
    "Lease",
    "LeaseLost",
    "LeaseRegister",
    "Message",
    "NotSetUp",
    "Queue",
    "QueueFull",
    "Register",
    "Replication",
    "ReplicationLag",
    "ReplicationLoop",
    "ReplicationRefused",
    "Result",
    "Survey",
    "TransactionAborted",
    "connect",
]
