"""holdfast.v1.Node: describes this node, and lets an operator found a cluster on it."""

from __future__ import annotations

from holdfast import __version__
from holdfast.api.base import Service, Serving
from holdfast.api.reports import Reports
from holdfast.front.calls import Call
from holdfast.member.node import Node
from holdfast.proto import holdfast_pb2


class NodeService(Service):
    def __init__(self, serving: Serving, reports: Reports) -> None:
        super().__init__(serving)
        router = self.router
        self._reports = reports
        router.unary("/holdfast.v1.Node/Describe", self.describe)
        router.unary("/holdfast.v1.Node/Form", self.form)
        router.unary("/holdfast.v1.Node/Open", self.open)

    def describe(self, call: Call, body: bytes) -> None:
        """Describe this node, whether it belongs to a cluster or not."""
        holdfast_pb2.DescribeRequest.FromString(body)
        if self.node.member is not None:
            self.require_user(call, self.node.member)
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
            response.leader = member.raft.leader
            response.applied_index = member.state.applied_index
            response.term = member.raft.term
            response.epoch = member.state.epoch
            response.revision = member.state.space.revision
            response.cluster_version = member.state.cluster_version
        self.router.reply(call.id, response.SerializeToString())

    def _require_admin(self, call: Call) -> None:
        """A node without a state knows no users yet, and lets everyone found a cluster on it."""
        if self.node.member is not None:
            self.require_admin(call, self.node.member)

    def form(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.FormRequest.FromString(body)
        self._require_admin(call)
        member_id = self.node.form(request.cluster_id, request.volume_id)
        self.router.reply(call.id, holdfast_pb2.FormResponse(member_id=member_id).SerializeToString())

    def open(self, call: Call, body: bytes) -> None:
        request = holdfast_pb2.OpenRequest.FromString(body)
        self._require_admin(call)
        self.node.open(request.cluster_id)
        self.router.reply(call.id, holdfast_pb2.OpenResponse().SerializeToString())


def ready(node: Node) -> bool:
    """Whether clients should be sent here: to a voter that has caught up since its start, and whose disk works. This
    does not require a quorum: otherwise losing it would remove every endpoint, and with them serializable reads."""
    member = node.member
    if member is None or not node.data.identity.opened or node.removed:
        return False
    return member.is_voter and node.caught_up and not member.disk_stalled
