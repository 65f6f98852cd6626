"""holdfast.v1.Node: which node this is, and an operator's way to found a cluster on it."""

from __future__ import annotations

from holdfast import __version__
from holdfast.api.base import Service, Serving
from holdfast.front.calls import Call
from holdfast.member.node import Node
from holdfast.proto import holdfast_pb2

MAX_REPORTS = 5000  # that one Describe lists


class Reports:
    """How far the replicas are that follow this member. Memory only: they report again when they reconnect.

    A stream has one report, so there are never more of them than streams, and it goes with its stream."""

    def __init__(self) -> None:
        self._by_stream: dict[int, holdfast_pb2.ReplicaReport] = {}

    def put(self, stream: int, report: holdfast_pb2.ReplicaReport) -> None:
        self._by_stream.pop(stream, None)  # the newest last: it counts if a name is there twice
        self._by_stream[stream] = report

    def gone(self, stream: int) -> None:
        self._by_stream.pop(stream, None)

    def all(self) -> list[holdfast_pb2.ReplicaReport]:
        """The newest of each name, of the last that reported."""
        newest = {report.replica: report for report in self._by_stream.values()}
        return list(newest.values())[-MAX_REPORTS:]


class NodeService(Service):
    def __init__(self, serving: Serving, reports: Reports) -> None:
        super().__init__(serving)
        router = self.router
        self._reports = reports
        router.unary("/holdfast.v1.Node/Describe", self.describe)
        router.unary("/holdfast.v1.Node/Form", self.form)
        router.unary("/holdfast.v1.Node/Open", self.open)

    def describe(self, call: Call, body: bytes) -> None:
        """Answered by every node, in a cluster or not."""
        holdfast_pb2.DescribeRequest.FromString(body)
        identity = self.node.data.identity
        response = holdfast_pb2.DescribeResponse(
            volume_id=identity.volume_id,
            cluster_id=identity.cluster_id,
            member_id=identity.member_id,
            state=holdfast_pb2.DescribeResponse.State.Name(self.node.state.value),
            name=self.node.config.name,
            version=__version__,
            ready=ready(self.node),
            replicas=self._reports.all(),
        )
        member = self.node.member
        if member is not None:
            core = member.core
            response.leader = core.leader
            response.applied_index = member.state.applied_index
            response.term = core.term
            response.epoch = member.state.epoch
            response.revision = member.state.space.revision
            response.cluster_version = member.state.cluster_version
        self.router.reply(call.id, response.SerializeToString())

    def form(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.FormRequest.FromString(body)
        member_id = self.node.form(request.cluster_id, request.volume_id)
        self.router.reply(call.id, holdfast_pb2.FormResponse(member_id=member_id).SerializeToString())

    def open(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.OpenRequest.FromString(body)
        self.node.open(request.cluster_id)
        self.router.reply(call.id, holdfast_pb2.OpenResponse().SerializeToString())


def ready(node: Node) -> bool:
    """Whether clients should be sent here: a voter that has caught up since its start. Never "has quorum", or losing it
    would take away every endpoint, and local reads with them."""
    member = node.member
    if member is None or not node.data.identity.opened or node.removed:
        return False
    core = member.core
    return core.raft.conf.is_voter(core.id) and node.caught_up
