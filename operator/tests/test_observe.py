"""What is made of the reports of several members."""

from __future__ import annotations

from holdfast.proto.holdfast_pb2 import DescribeResponse, ReplicaReport
from holdfast_operator.observe import _replicas


def test_a_replica_that_is_offline_is_not_among_those_that_follow() -> None:
    """It may have moved to another member; and only those that follow are counted."""
    here = [
        ReplicaReport(replica="moved", watermark=9, offline_since=1000),
        ReplicaReport(replica="lost", watermark=9, offline_since=1000),
        ReplicaReport(replica="twice", watermark=3),
    ]
    there = [ReplicaReport(replica="moved", watermark=5), ReplicaReport(replica="twice", watermark=4)]
    found = _replicas({0: DescribeResponse(replicas=here), 1: DescribeResponse(replicas=there)})
    assert {r.replica: r.watermark for r in found} == {"moved": 5, "twice": 4}
