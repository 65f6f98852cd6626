"""The replicated state machine: its public names, to apply entries to a state and to create one."""

from holdfast.machine.genesis import Genesis, Restored, ended_alarms
from holdfast.machine.leases import MAX_TTL_SECONDS, LeaseEvent
from holdfast.machine.machine import CORRUPT_ALARM, FORMAT, NOSPACE_ALARM, Applied, ClusterEvent, Effect, Machine
from holdfast.machine.rows import applied
from holdfast.machine.state import AppliedState

__all__ = [
    "CORRUPT_ALARM",
    "FORMAT",
    "MAX_TTL_SECONDS",
    "NOSPACE_ALARM",
    "Applied",
    "AppliedState",
    "ClusterEvent",
    "Effect",
    "Genesis",
    "LeaseEvent",
    "Machine",
    "Restored",
    "applied",
    "ended_alarms",
]
