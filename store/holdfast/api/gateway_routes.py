"""The routes of the JSON gateway: path -> method and messages, as in the annotations of etcd's .proto files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.message import Message

from holdfast.front.calls import Kind
from holdfast.proto import election_pb2, lock_pb2, rpc_pb2


class Route(NamedTuple):
    """The method that a path calls, and its messages."""

    method: str
    kind: Kind
    request: type[Message]
    response: type[Message]


def routes(kinds: Mapping[str, Kind]) -> dict[str, Route]:
    """The routes by path, to the methods that the server has: a replica lacks some."""
    found: dict[str, Route] = {}

    def add(prefix: str, service: str, module: object, methods: Mapping[str, str], family: str = "") -> None:
        for word, method in methods.items():
            name, called = family + method, f"/{service}/{method}"
            if called not in kinds:
                continue
            request, response = _TYPES.get(method, (f"{name}Request", f"{name}Response"))
            route = Route(called, kinds[called], getattr(module, request), getattr(module, response))
            found[f"/v3/{prefix}/{word}"] = route

    add(
        "kv",
        "etcdserverpb.KV",
        rpc_pb2,
        {"range": "Range", "put": "Put", "deleterange": "DeleteRange", "txn": "Txn", "compaction": "Compact"},
    )
    lease = {
        "grant": "LeaseGrant",
        "revoke": "LeaseRevoke",
        "keepalive": "LeaseKeepAlive",
        "timetolive": "LeaseTimeToLive",
        "leases": "LeaseLeases",
    }
    add("lease", "etcdserverpb.Lease", rpc_pb2, lease)
    older = {word: method for word, method in lease.items() if word in ("revoke", "timetolive", "leases")}
    add("kv/lease", "etcdserverpb.Lease", rpc_pb2, older)
    members = ("add", "remove", "update", "list", "promote")
    add("cluster/member", "etcdserverpb.Cluster", rpc_pb2, {word: f"Member{word.capitalize()}" for word in members})
    add(
        "maintenance",
        "etcdserverpb.Maintenance",
        rpc_pb2,
        {
            "alarm": "Alarm",
            "status": "Status",
            "defragment": "Defragment",
            "hash": "Hash",
            "hashkv": "HashKV",
            "snapshot": "Snapshot",
            "transfer-leadership": "MoveLeader",
            "downgrade": "Downgrade",
        },
    )
    auth = "etcdserverpb.Auth"
    add("auth", auth, rpc_pb2, {"enable": "AuthEnable", "disable": "AuthDisable", "status": "AuthStatus"})
    add("auth", auth, rpc_pb2, {"authenticate": "Authenticate"})
    user = {word: f"User{word.capitalize()}" for word in ("add", "get", "list", "delete")}
    user |= {"changepw": "UserChangePassword", "grant": "UserGrantRole", "revoke": "UserRevokeRole"}
    add("auth/user", auth, rpc_pb2, user, "Auth")
    role = {word: f"Role{word.capitalize()}" for word in ("add", "get", "list", "delete")}
    role |= {"grant": "RoleGrantPermission", "revoke": "RoleRevokePermission"}
    add("auth/role", auth, rpc_pb2, role, "Auth")
    add("lock", "v3lockpb.Lock", lock_pb2, {"lock": "Lock", "unlock": "Unlock"})
    election = ("campaign", "proclaim", "leader", "observe", "resign")
    add("election", "v3electionpb.Election", election_pb2, {word: word.capitalize() for word in election})
    watch = "/etcdserverpb.Watch/Watch"
    found["/v3/watch"] = Route(watch, kinds[watch], rpc_pb2.WatchRequest, rpc_pb2.WatchResponse)
    return found


_TYPES = {
    "Compact": ("CompactionRequest", "CompactionResponse"),
    "Leader": ("LeaderRequest", "LeaderResponse"),
    "Observe": ("LeaderRequest", "LeaderResponse"),
}
