"""Interesting states that runs must come to: if none does, what happens in them was not tested ("sometimes" marks)."""

from __future__ import annotations

MARKS = (
    # elections and leadership
    "two candidates in one term",
    "two leaders, in different terms",
    "leader stepped down in its term",
    "leadership handed over",
    "leader elected after a hint",
    # the log
    "entries truncated",
    "long tail truncated",
    "append split",
    "commit index beyond its append",
    "window full",
    "window full and its place compacted",
    "log compacted",
    "torn tail",
    "crash with unsynced records",
    "whole cluster restarted",
    "sync failed",
    "disk full",
    "disk lost",
    "rot found at start",
    "link queue overflowed",
    # membership
    "joint configuration",
    "partition in a joint configuration",
    "leader elected in a joint configuration",
    "several members changed at once",
    "member removed",
    "leader removed itself",
    "dead member replaced",
    "cluster version raised",
    "configuration truncated",
    # snapshots
    "snapshot installed",
    "snapshot interrupted",
    "snapshot interrupted by the sender's end",
    # clients
    "operation unknown",
    "operation refused",
    "command sent again under its session",
    "first answer given again",
    "client session opened",
    "client session ended",
    "lease expired",
    "lock taken",
    "late holder fenced off",
    "read of the past",
    "read by lease",
    # watches and replicas
    "watch resumed",
    "watch resumed at a member that is behind",
    "watch compacted",
    "watch stream blocked",
    "replica took a snapshot",
    "replica resumed",
    "replica waits for a member that is behind",
    "replica lost power",
)
