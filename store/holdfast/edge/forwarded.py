"""Which calls a replica forwards as they are. What it serves itself is in `edge.service`.

Left out is what concerns the server that is asked (Defragment, Hash, Downgrade, MoveLeader), and what only members say
of themselves.
"""

from __future__ import annotations

_AUTH = (
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
)

FORWARDED = (
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/HashKV",
    *(f"/etcdserverpb.Auth/{method}" for method in _AUTH),
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Resign",
    "/v3lockpb.Lock/Unlock",
    "/holdfast.v1.Identity/WhoAmI",
    "/holdfast.v1.Session/Open",
    "/holdfast.v1.Keys/PutSequential",
    "/holdfast.v1.Caches/Allow",
    "/holdfast.v1.Caches/Forbid",
    "/holdfast.v1.Caches/List",
    "/holdfast.v1.Membership/Get",
    "/holdfast.v1.Membership/Change",
)
# These wait for others, for as long as the caller waits.
WAITING = ("/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign")
ANSWERS = ("/v3electionpb.Election/Observe", "/etcdserverpb.Maintenance/Snapshot")  # one request, many answers
