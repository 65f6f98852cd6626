"""Which calls are permitted while auth is on: without a token, for a user without rights, and with a void token."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from holdfast.proto import rpc_pb2

from .sides import Metadata, Pair

AUTH, CLUSTER, LEASE, MAINTENANCE = (f"/etcdserverpb.{s}/" for s in ("Auth", "Cluster", "Lease", "Maintenance"))
CALLS: list[tuple[str, Message, type[Message]]] = [
    (MAINTENANCE + "Status", rpc_pb2.StatusRequest(), rpc_pb2.StatusResponse),
    (MAINTENANCE + "Alarm", rpc_pb2.AlarmRequest(), rpc_pb2.AlarmResponse),
    (MAINTENANCE + "Alarm", rpc_pb2.AlarmRequest(action="ACTIVATE", alarm="NOSPACE"), rpc_pb2.AlarmResponse),
    (MAINTENANCE + "Hash", rpc_pb2.HashRequest(), rpc_pb2.HashResponse),
    (MAINTENANCE + "HashKV", rpc_pb2.HashKVRequest(), rpc_pb2.HashKVResponse),
    (MAINTENANCE + "Defragment", rpc_pb2.DefragmentRequest(), rpc_pb2.DefragmentResponse),
    (MAINTENANCE + "MoveLeader", rpc_pb2.MoveLeaderRequest(targetID=5), rpc_pb2.MoveLeaderResponse),
    (MAINTENANCE + "Downgrade", rpc_pb2.DowngradeRequest(version="3.5.0"), rpc_pb2.DowngradeResponse),
    (CLUSTER + "MemberList", rpc_pb2.MemberListRequest(linearizable=True), rpc_pb2.MemberListResponse),
    (CLUSTER + "MemberList", rpc_pb2.MemberListRequest(), rpc_pb2.MemberListResponse),
    (CLUSTER + "MemberAdd", rpc_pb2.MemberAddRequest(peerURLs=["http://h:1"]), rpc_pb2.MemberAddResponse),
    (CLUSTER + "MemberRemove", rpc_pb2.MemberRemoveRequest(ID=5), rpc_pb2.MemberRemoveResponse),
    (CLUSTER + "MemberUpdate", rpc_pb2.MemberUpdateRequest(ID=5), rpc_pb2.MemberUpdateResponse),
    (CLUSTER + "MemberPromote", rpc_pb2.MemberPromoteRequest(ID=5), rpc_pb2.MemberPromoteResponse),
    ("/etcdserverpb.KV/Compact", rpc_pb2.CompactionRequest(revision=1), rpc_pb2.CompactionResponse),
    ("/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(key=b"a"), rpc_pb2.RangeResponse),
    (LEASE + "LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=1), rpc_pb2.LeaseTimeToLiveResponse),
    (LEASE + "LeaseLeases", rpc_pb2.LeaseLeasesRequest(), rpc_pb2.LeaseLeasesResponse),
    (AUTH + "UserGet", rpc_pb2.AuthUserGetRequest(name="ann"), rpc_pb2.AuthUserGetResponse),
    (AUTH + "UserList", rpc_pb2.AuthUserListRequest(), rpc_pb2.AuthUserListResponse),
    (AUTH + "RoleList", rpc_pb2.AuthRoleListRequest(), rpc_pb2.AuthRoleListResponse),
    (AUTH + "AuthStatus", rpc_pb2.AuthStatusRequest(), rpc_pb2.AuthStatusResponse),
]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    both = Pair()
    try:
        for name in ("root", "ann"):
            request: Message = rpc_pb2.AuthUserAddRequest(name=name, password="p")
            both.call(AUTH + "UserAdd", request, rpc_pb2.AuthUserAddResponse)
        request = rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")
        both.call(AUTH + "UserGrantRole", request, rpc_pb2.AuthUserGrantRoleResponse)
        both.call(AUTH + "AuthEnable", rpc_pb2.AuthEnableRequest(), rpc_pb2.AuthEnableResponse)
        yield both
    finally:
        both.stop()


@pytest.mark.integration
@pytest.mark.parametrize("who", ["nobody", "ann", "void"])
def test_the_same_callers_are_let_in(pair: Pair, who: str) -> None:
    metadata: tuple[Metadata, Metadata] = ((), ())
    if who == "void":
        metadata = ((("token", "x.1"),), (("token", "x.1"),))
    elif who == "ann":
        request = rpc_pb2.AuthenticateRequest(name="ann", password="p")
        answers = pair.call(AUTH + "Authenticate", request, rpc_pb2.AuthenticateResponse)
        mine, theirs = ((("token", answer.token),) for answer in answers)  # type: ignore[union-attr]
        metadata = (mine, theirs)
    for path, request_, reply in CALLS:
        ours, etcds = (_outcome(answer) for answer in pair.call(path, request_, reply, metadata))
        assert ours == etcds, f"{path} as {who}"


def _outcome(answer: Message | grpc.RpcError) -> tuple[str, str]:
    if isinstance(answer, grpc.RpcError):
        return answer.code().name, answer.details()
    return "OK", ""
