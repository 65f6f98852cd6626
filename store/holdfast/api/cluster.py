"""etcdserverpb.Cluster and holdfast.v1.Membership: listing and changing the members."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from holdfast.api.base import Service, Serving
from holdfast.front.calls import Call
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.member.membership import caught_up, check_urls
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.status import Code, Refusal, RequestError

_Change = raft_pb2.MemberChange
_Request = holdfast_pb2.MembershipChangeRequest
_KINDS = {
    _Request.ADD_LEARNER: _Change.ADD_LEARNER,
    _Request.PROMOTE: _Change.PROMOTE,
    _Request.REMOVE: _Change.REMOVE,
    _Request.DEMOTE: _Change.DEMOTE,
}


class ClusterService(Service):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        router = self.router
        router.unary("/etcdserverpb.Cluster/MemberList", self.list)
        router.unary("/etcdserverpb.Cluster/MemberAdd", self.add)
        router.unary("/etcdserverpb.Cluster/MemberRemove", self.remove)
        router.unary("/etcdserverpb.Cluster/MemberUpdate", self.update)
        router.unary("/etcdserverpb.Cluster/MemberPromote", self.promote)
        router.unary("/holdfast.v1.Membership/Get", self.get)
        router.unary("/holdfast.v1.Membership/Change", self.change)

    # ---- etcd's --------------------------------------------------------------------------------------------

    def list(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MemberListRequest.FromString(body)
        member = self.member(call)
        self.require_user(call, member)
        if request.linearizable:
            self.when_current(call, member, lambda: self._answer(call, member, rpc_pb2.MemberListResponse()))
        else:
            self._answer(call, member, rpc_pb2.MemberListResponse())

    def add(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MemberAddRequest.FromString(body)
        check_urls(request.peerURLs)
        member = self.member(call)
        seed = f"{time.time_ns()}{self.node.data.identity.cluster_id}{sorted(request.peerURLs)}"
        minted = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1 or 1
        info = raft_pb2.MemberInfo(id=minted, peer_urls=request.peerURLs)
        kind = _Change.ADD_LEARNER if request.isLearner else _Change.ADD_VOTER

        def done() -> None:
            added = member.state.members.get(minted, info)
            response = rpc_pb2.MemberAddResponse(member=_member(member, added))
            self._answer(call, member, response)

        self._propose(call, member, _Change(kind=kind, member=info), done)

    def remove(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MemberRemoveRequest.FromString(body)
        member = self.member(call)
        change = _Change(kind=_Change.REMOVE, member=raft_pb2.MemberInfo(id=request.ID))
        self._propose(call, member, change, lambda: self._answer(call, member, rpc_pb2.MemberRemoveResponse()))

    def update(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MemberUpdateRequest.FromString(body)
        member = self.member(call)
        self.require_admin(call, member)
        check_urls(request.peerURLs)
        info = raft_pb2.MemberInfo(id=request.ID, peer_urls=request.peerURLs)
        change = _Change(kind=_Change.UPDATE, member=info)
        self._propose(call, member, change, lambda: self._answer(call, member, rpc_pb2.MemberUpdateResponse()))

    def promote(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MemberPromoteRequest.FromString(body)
        member = self.member(call)
        change = _Change(kind=_Change.PROMOTE, member=raft_pb2.MemberInfo(id=request.ID))
        self._propose(call, member, change, lambda: self._answer(call, member, rpc_pb2.MemberPromoteResponse()))

    def _propose(self, call: Call, member: Member, change: raft_pb2.MemberChange, done: Callable[[], None]) -> None:
        def answered(answer: Answer) -> None:
            if not self.refuse(call, answer):
                done()

        self.require_admin(call, member)
        member.propose(raft_pb2.Command(member=change), answered, call.deadline_ns)

    def _answer(
        self,
        call: Call,
        member: Member,
        response: rpc_pb2.MemberListResponse
        | rpc_pb2.MemberAddResponse
        | rpc_pb2.MemberRemoveResponse
        | rpc_pb2.MemberUpdateResponse
        | rpc_pb2.MemberPromoteResponse,
    ) -> None:
        response.members.extend(members(member))
        self.answer(call, member, response, 0)

    # ---- ours ----------------------------------------------------------------------------------------------

    def get(self, call: Call, body: bytes) -> None:
        """The members and the configuration's index, once everything acknowledged so far is applied."""
        holdfast_pb2.MembershipGetRequest.FromString(body)
        member = self.member(call)
        self.require_user(call, member)

        def read() -> None:
            raft = member.raft
            response = holdfast_pb2.MembershipGetResponse(config_index=member.state.conf_index, leader=raft.leader)
            for info in members(member):
                progress = raft.progress(info.ID)
                response.members.add(
                    member=info,
                    caught_up=raft.is_leader and (raft.id == info.ID or caught_up(raft, info.ID)),
                    match_index=progress.match if progress else 0,
                )
            self.answer(call, member, response)

        self.when_current(call, member, read)

    def change(self, call: Call, body: bytes) -> None:
        """Change the membership, if the configuration is still the one that the caller has seen."""
        request = _Request.FromString(body)
        member = self.member(call)
        if not request.expected_config_index:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: a change needs the expected config index"))
        change = _as_change(request)
        change.expected_config_index = request.expected_config_index
        change.together.extend(_as_change(step) for step in request.together)

        def done() -> None:
            response = holdfast_pb2.MembershipChangeResponse(config_index=member.state.conf_index)
            self.answer(call, member, response)

        self._propose(call, member, change, done)


def _as_change(request: holdfast_pb2.MembershipChangeRequest) -> raft_pb2.MemberChange:
    """One step of a change, validated as far as possible before it is proposed."""
    if request.kind not in _KINDS or not request.member_id:
        raise RequestError(Refusal(Code.INVALID_ARGUMENT, "holdfast: a change needs a kind and a member id"))
    adds = request.kind == _Request.ADD_LEARNER
    if adds:
        check_urls(request.peer_urls)
    info = raft_pb2.MemberInfo(
        id=request.member_id,
        name=request.name,
        peer_urls=request.peer_urls,
        volume_id=request.member_id if adds else 0,
    )
    return _Change(kind=_KINDS[request.kind], member=info)


def members(member: Member) -> list[rpc_pb2.Member]:
    """The members of the cluster in the order of their ids, as applied by this member."""
    return [_member(member, info) for _, info in sorted(member.state.members.items())]


def _member(member: Member, info: raft_pb2.MemberInfo) -> rpc_pb2.Member:
    return rpc_pb2.Member(
        ID=info.id,
        name=info.name,
        peerURLs=info.peer_urls,
        clientURLs=info.client_urls,
        isLearner=info.id in member.state.conf.learners,
    )
