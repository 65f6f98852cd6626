"""What is made of the reports of several members."""

from __future__ import annotations

from holdfast.proto.holdfast_pb2 import DescribeResponse, ReplicaReport
from holdfast_operator.observe import _replicas


def test_a_replica_that_follows_one_member_is_not_offline_though_another_says_so() -> None:
    here = [
        ReplicaReport(replica="moved", watermark=9, offline_since=1000),
        ReplicaReport(replica="lost", watermark=9, offline_since=1000),
        ReplicaReport(replica="twice", watermark=3),
    ]
    there = [ReplicaReport(replica="moved", watermark=5), ReplicaReport(replica="twice", watermark=4)]
    found = _replicas({0: DescribeResponse(replicas=here), 1: DescribeResponse(replicas=there)})
    assert {r.replica: r.watermark for r in found} == {"moved": 5, "lost": 9, "twice": 4}
    assert {r.replica for r in found if r.offline_since} == {"lost"}
