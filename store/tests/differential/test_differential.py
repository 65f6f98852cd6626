"""`make differential OPS=100000 SEED=1`: our answers differ from etcd's only as `meant` lists.

Each example begins with nothing in either server but the revisions that went before, and makes up to 50 random calls;
hypothesis minimizes a failing one. `make test` runs a few.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf.message import Message
from holdfast.proto import auth_pb2, rpc_pb2
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from . import requests as r
from .meant import is_meant
from .plain import plain
from .sides import Metadata, Pair
from .watches import WatchSide

OPS = int(os.environ.get("OPS", "2000"))
SEED = int(os.environ.get("SEED", "1"))
SHRINK = os.environ.get("SHRINK", "1") == "1"  # SHRINK=0: say what differs and go on
STEPS = 50
OPS_PER_SEED = 5000
SENTINEL = b"\xff\xff/sentinel"
WHO = ["root", "ann", "bob", "nobody", "void"]


class Machine(RuleBasedStateMachine):
    """What is called; both sides are kept between examples."""

    pair: ClassVar[Pair]
    done: ClassVar[Counter[str]] = Counter()
    meant: ClassVar[Counter[str]] = Counter()
    unexplained: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.revision = 0
        self.who = "root"
        self.watches: list[WatchSide] = []
        self.furthest = 0  # start revision of any watch
        self.auth = False
        self.said: list[str] = []  # what was called in this example
        self._clean()

    # ---- the two sides -------------------------------------------------------------------------------------

    def both(self, method: str, request: Message, reply: type[Message], *, compared: bool = True) -> Any:
        """Call both, compare, and give our answer as plain values."""
        path = f"/etcdserverpb.{method}"
        request = r.resolve(request, self.revision)
        metadata = tuple(self._metadata(side.tokens) for side in self.pair.sides)
        ours, theirs = self.pair.call(path, request, reply, metadata)  # type: ignore[arg-type]
        self.done[method] += 1
        mine, other = plain(ours), plain(theirs)
        self.said.append(f"{method} as {self.who} with {' '.join(str(request).split())}: {mine}")
        if compared:
            self.compare(method, f"{method} as {self.who} with\n{request}", mine, other)
        for answer in (ours, theirs):
            header = getattr(answer, "header", None)
            if header is not None and header.revision:
                self.revision = max(self.revision, header.revision)
        return mine

    def compare(self, method: str, what: str, ours: Any, theirs: Any) -> None:
        if ours == theirs:
            return
        reason = is_meant(method, ours, theirs)
        difference = f"ours: {ours}\netcd: {theirs}\n{what}\nafter:\n  " + "\n  ".join(self.said[-30:])
        if reason:
            self.meant[reason] += 1
            return
        Machine.unexplained += 1
        print(f"differs: {difference}", flush=True)
        assert not SHRINK, difference

    def _metadata(self, tokens: dict[str, str]) -> Metadata:
        if not self.auth or self.who == "nobody":
            return ()
        return (("token", tokens.get(self.who, "abcdefghijklmnop.1")),)

    def _clean(self) -> None:
        """Nothing left of the example before."""
        self.auth, self.who = True, "root"
        status = self.both("Auth/AuthStatus", rpc_pb2.AuthStatusRequest(), rpc_pb2.AuthStatusResponse, compared=False)
        if isinstance(status, tuple) or status.get("enabled"):
            self.log_in("root")
            self.both("Auth/AuthDisable", rpc_pb2.AuthDisableRequest(), rpc_pb2.AuthDisableResponse)
        self.auth = False
        for side in self.pair.sides:
            side.tokens.clear()
        for action in (rpc_pb2.NOSPACE, rpc_pb2.CORRUPT):
            disarm = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=7, alarm=action)
            self.both("Maintenance/Alarm", disarm, rpc_pb2.AlarmResponse, compared=False)
        for lease in r.LEASES[1:]:
            self.both("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease), rpc_pb2.LeaseRevokeResponse)
        every = rpc_pb2.DeleteRangeRequest(key=b"\x00", range_end=b"\x00")
        self.both("KV/DeleteRange", every, rpc_pb2.DeleteRangeResponse)
        for user in r.USERS:
            self.both("Auth/UserDelete", rpc_pb2.AuthUserDeleteRequest(name=user), rpc_pb2.AuthUserDeleteResponse)
        for role in r.ROLES:
            self.both("Auth/RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role=role), rpc_pb2.AuthRoleDeleteResponse)

    def teardown(self) -> None:
        self._end_watches()

    def _end_watches(self) -> None:
        for watch in self.watches:
            watch.close()
        self.watches = []

    # ---- keys ----------------------------------------------------------------------------------------------

    @rule(request=r.ranges())
    def range(self, request: rpc_pb2.RangeRequest) -> None:
        self.both("KV/Range", request, rpc_pb2.RangeResponse)

    @rule(request=r.puts())
    def put(self, request: rpc_pb2.PutRequest) -> None:
        self.both("KV/Put", request, rpc_pb2.PutResponse)

    @rule(request=r.puts())
    def put_again(self, request: rpc_pb2.PutRequest) -> None:
        self.both("KV/Put", request, rpc_pb2.PutResponse)

    @rule(request=r.deletes())
    def delete_range(self, request: rpc_pb2.DeleteRangeRequest) -> None:
        self.both("KV/DeleteRange", request, rpc_pb2.DeleteRangeResponse)

    @rule(request=r.txns())
    def txn(self, request: rpc_pb2.TxnRequest) -> None:
        self.both("KV/Txn", request, rpc_pb2.TxnResponse)

    @rule(request=r.read_txns())
    def read_txn(self, request: rpc_pb2.TxnRequest) -> None:
        self.both("KV/Txn", request, rpc_pb2.TxnResponse)

    @rule(revision=r.revisions, physical=r.flag, rarely=st.integers(0, 3))
    def compact(self, revision: int, physical: bool, rarely: int) -> None:
        if rarely:
            return
        self.drain()  # whether a watch that is behind still gets its history is a matter of time
        request = rpc_pb2.CompactionRequest(revision=revision, physical=physical)
        self.both("KV/Compact", request, rpc_pb2.CompactionResponse)

    # ---- leases --------------------------------------------------------------------------------------------

    @rule(lease=st.sampled_from([101, 102, 103]), ttl=st.sampled_from([600, 1000, 10_000_000_000]))
    def grant(self, lease: int, ttl: int) -> None:
        self.both("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=lease, TTL=ttl), rpc_pb2.LeaseGrantResponse)

    @rule(ttl=st.sampled_from([0, -5, 1, 2, 3]))
    def grant_briefly(self, ttl: int) -> None:
        self.both("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=-55, TTL=ttl), rpc_pb2.LeaseGrantResponse)
        self.both("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=-55), rpc_pb2.LeaseRevokeResponse)

    @rule(lease=st.sampled_from([0, 101, 102, 103, 999]))
    def revoke(self, lease: int) -> None:
        self.both("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease), rpc_pb2.LeaseRevokeResponse)

    @rule(lease=st.sampled_from([0, 101, 102, 103, 999]), keys=st.booleans())
    def time_to_live(self, lease: int, keys: bool) -> None:
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        self.both("Lease/LeaseTimeToLive", request, rpc_pb2.LeaseTimeToLiveResponse)

    @rule()
    def leases(self) -> None:
        self.both("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest(), rpc_pb2.LeaseLeasesResponse)

    @rule(lease=st.sampled_from([101, 102, 999]))
    def keep_alive(self, lease: int) -> None:
        answers: list[Any] = []
        for side in self.pair.sides:
            stream = side.stream(
                "/etcdserverpb.Lease/LeaseKeepAlive",
                [rpc_pb2.LeaseKeepAliveRequest(ID=lease)] * 2,
                rpc_pb2.LeaseKeepAliveResponse,
                self._metadata(side.tokens),
            )
            try:
                answers.append([plain(answer) for answer in stream])
            except grpc.RpcError as error:
                answers.append(plain(error))
        self.done["Lease/LeaseKeepAlive"] += 1
        self.said.append(f"keep-alive of {lease} as {self.who}: {answers[0]}")
        self.compare("Lease/LeaseKeepAlive", f"keep-alive of {lease} as {self.who}", *answers)

    # ---- watches -------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.auth)
    @rule(request=r.watch_creates())
    def watch(self, request: rpc_pb2.WatchCreateRequest) -> None:
        if not self.watches:
            self.watches = [WatchSide(side) for side in self.pair.sides]
            sentinel = rpc_pb2.WatchCreateRequest(key=SENTINEL, watch_id=999)
            self._create(sentinel)
        request = r.resolve(request, self.revision)
        # Which of several watches that are behind gets its history first is each server's own; who was told what when
        # a watch is cancelled or history compacted is only the same once both have told everything.
        self._create(request)
        self.furthest = max(self.furthest, request.start_revision)
        self.drain()

    @precondition(lambda self: bool(self.watches))
    @rule(id=st.sampled_from([0, 1, 5, 7, 42]))
    def cancel(self, id: int) -> None:
        self.drain()
        self.done["Watch"] += 1
        for watch in self.watches:
            watch.send(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=id)))

    def _create(self, request: rpc_pb2.WatchCreateRequest) -> None:
        self.done["Watch"] += 1
        self.said.append(f"watch {' '.join(str(request).split())}")
        for watch in self.watches:
            watch.create(request)

    @precondition(lambda self: bool(self.watches))
    @rule()
    def drain(self) -> None:
        """Wait until both have told everything there is, and compare what they told."""
        if not self.watches:
            return
        # A revision of its own, so that no progress that was reported before is taken for the one waited for.
        upto = max(self.revision + 1, self.furthest)
        while self.revision < upto:
            before = self.revision
            self._as_root("KV/Put", rpc_pb2.PutRequest(key=SENTINEL), rpc_pb2.PutResponse)
            if self.revision == before:
                return  # nothing can be written now
        for watch in self.watches:
            watch.wait_for(self.revision)
        ours, theirs = (watch.seen for watch in self.watches)
        differing = [id for id in {**ours, **theirs} if ours.get(id) != theirs.get(id)]
        self.compare("Watch", "watches", *({id: seen.get(id) for id in differing} for seen in (ours, theirs)))

    def _as_root(self, method: str, request: Message, reply: type[Message]) -> None:
        who, self.who = self.who, "root"
        self.both(method, request, reply)
        self.who = who

    # ---- alarms --------------------------------------------------------------------------------------------

    @rule(action=st.integers(0, 2), alarm=st.integers(0, 2), rarely=st.integers(0, 3))
    def alarm(self, action: int, alarm: int, rarely: int) -> None:
        if rarely and action == rpc_pb2.AlarmRequest.ACTIVATE:
            return
        request = rpc_pb2.AlarmRequest(action=action, memberID=7, alarm=alarm)  # type: ignore[arg-type]
        self.both("Maintenance/Alarm", request, rpc_pb2.AlarmResponse)

    # ---- users and roles -----------------------------------------------------------------------------------

    @rule(user=st.sampled_from([*r.USERS, ""]), none=r.rare)
    def user_add(self, user: str, none: bool) -> None:
        options = auth_pb2.UserAddOptions(no_password=none and user != "root")
        request = rpc_pb2.AuthUserAddRequest(name=user, password=r.PASSWORD, options=options)
        self.both("Auth/UserAdd", request, rpc_pb2.AuthUserAddResponse)

    @rule(user=st.sampled_from(r.USERS))
    def user_delete(self, user: str) -> None:
        self.both("Auth/UserDelete", rpc_pb2.AuthUserDeleteRequest(name=user), rpc_pb2.AuthUserDeleteResponse)

    @rule(user=st.sampled_from([*r.USERS, "x"]))
    def user_get(self, user: str) -> None:
        self.both("Auth/UserGet", rpc_pb2.AuthUserGetRequest(name=user), rpc_pb2.AuthUserGetResponse)

    @rule()
    def user_list(self) -> None:
        self.both("Auth/UserList", rpc_pb2.AuthUserListRequest(), rpc_pb2.AuthUserListResponse)

    @rule(user=st.sampled_from(r.USERS))
    def change_password(self, user: str) -> None:
        request = rpc_pb2.AuthUserChangePasswordRequest(name=user, password=r.PASSWORD)
        self.both("Auth/UserChangePassword", request, rpc_pb2.AuthUserChangePasswordResponse)

    @rule(user=st.sampled_from(r.USERS), role=st.sampled_from(r.ROLES))
    def grant_role(self, user: str, role: str) -> None:
        request = rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role)
        self.both("Auth/UserGrantRole", request, rpc_pb2.AuthUserGrantRoleResponse)

    @rule(user=st.sampled_from(r.USERS), role=st.sampled_from(r.ROLES))
    def revoke_role(self, user: str, role: str) -> None:
        request = rpc_pb2.AuthUserRevokeRoleRequest(name=user, role=role)
        self.both("Auth/UserRevokeRole", request, rpc_pb2.AuthUserRevokeRoleResponse)

    @rule(role=st.sampled_from([*r.ROLES, ""]))
    def role_add(self, role: str) -> None:
        self.both("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name=role), rpc_pb2.AuthRoleAddResponse)

    @rule(role=st.sampled_from(r.ROLES))
    def role_delete(self, role: str) -> None:
        self.both("Auth/RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role=role), rpc_pb2.AuthRoleDeleteResponse)

    @rule(role=st.sampled_from(r.ROLES))
    def role_get(self, role: str) -> None:
        self.both("Auth/RoleGet", rpc_pb2.AuthRoleGetRequest(role=role), rpc_pb2.AuthRoleGetResponse)

    @rule()
    def role_list(self) -> None:
        self.both("Auth/RoleList", rpc_pb2.AuthRoleListRequest(), rpc_pb2.AuthRoleListResponse)

    @rule(role=st.sampled_from(r.ROLES), perm=st.none() | r.permissions())
    def grant_permission(self, role: str, perm: auth_pb2.Permission | None) -> None:
        request = rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=perm)
        self.both("Auth/RoleGrantPermission", request, rpc_pb2.AuthRoleGrantPermissionResponse)

    @rule(role=st.sampled_from(r.ROLES), perm=r.permissions())
    def revoke_permission(self, role: str, perm: auth_pb2.Permission) -> None:
        request = rpc_pb2.AuthRoleRevokePermissionRequest(role=role, key=perm.key, range_end=perm.range_end)
        self.both("Auth/RoleRevokePermission", request, rpc_pb2.AuthRoleRevokePermissionResponse)

    @rule()
    def auth_status(self) -> None:
        answer = self.both("Auth/AuthStatus", rpc_pb2.AuthStatusRequest(), rpc_pb2.AuthStatusResponse, compared=False)
        assert isinstance(answer, dict | tuple)

    @rule(setting_up=st.booleans())
    def auth_enable(self, setting_up: bool) -> None:
        self._end_watches()  # see meant.NOT_COMPARED
        if setting_up and not self.auth:
            self.user_add("root", False)
            self.grant_role("root", "root")
            for user, role in (("ann", "r1"), ("bob", "r2")):
                self.user_add(user, False)
                self.role_add(role)
                self.grant_role(user, role)
        answer = self.both("Auth/AuthEnable", rpc_pb2.AuthEnableRequest(), rpc_pb2.AuthEnableResponse)
        if isinstance(answer, dict) and not self.auth:
            self.auth = True
            self.log_in("root")

    @precondition(lambda self: self.auth)
    @rule(rarely=st.integers(0, 5))
    def auth_disable(self, rarely: int) -> None:
        if not rarely:
            self.who = "root"
            answer = self.both("Auth/AuthDisable", rpc_pb2.AuthDisableRequest(), rpc_pb2.AuthDisableResponse)
            self.auth = not isinstance(answer, dict)

    @rule(user=st.sampled_from([*r.USERS, "x"]), password=st.sampled_from([r.PASSWORD, r.PASSWORD, "wrong"]))
    def authenticate(self, user: str, password: str) -> None:
        self.log_in(user, password)

    def log_in(self, user: str, password: str = r.PASSWORD) -> None:
        request = rpc_pb2.AuthenticateRequest(name=user, password=password)
        answers = self.pair.call("/etcdserverpb.Auth/Authenticate", request, rpc_pb2.AuthenticateResponse)
        self.done["Auth/Authenticate"] += 1
        self.said.append(f"log in {user} {password}: {plain(answers[0])}")
        self.compare("Auth/Authenticate", f"log in {user} {password}", plain(answers[0]), plain(answers[1]))
        for side, answer in zip(self.pair.sides, answers, strict=True):
            if isinstance(answer, rpc_pb2.AuthenticateResponse):
                side.tokens[user] = answer.token

    @precondition(lambda self: self.auth)
    @rule(who=st.sampled_from(WHO))
    def become(self, who: str) -> None:
        self.who = who

    @precondition(lambda self: self.auth)
    @rule(request=r.watch_creates())
    def watch_as(self, request: rpc_pb2.WatchCreateRequest) -> None:
        """Whether a watch may be made, and the error if not."""
        request = r.resolve(request, self.revision)
        answers: list[Any] = []
        for side in self.pair.sides:
            watch = WatchSide(side, self._metadata(side.tokens))
            watch.create(request)
            answers.append({id: told[0][:3] for id, told in watch.seen.items()})
            watch.close()
        self.done["Watch"] += 1
        self.compare("Watch", f"watch as {self.who} with\n{request}", *answers)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    both = Pair()
    try:
        yield both
    finally:
        both.stop()


@pytest.mark.integration
@pytest.mark.timeout(7200)
def test_nothing_differs_from_etcd(pair: Pair) -> None:
    Machine.pair = pair
    for number in range(SEED, SEED + -(-OPS // OPS_PER_SEED)):
        print(f"seed {number}", flush=True)
        run_state_machine_as_test(
            seed(number)(Machine),
            settings=settings(
                max_examples=min(OPS, OPS_PER_SEED) // STEPS,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
                verbosity=Verbosity.normal,
            ),
        )
    calls = sum(Machine.done.values())
    print(f"{calls} calls to each: " + ", ".join(f"{n} {m}" for m, n in Machine.done.most_common()))
    for reason, count in Machine.meant.items():
        print(f"meant: {reason}: {count}")
    assert not Machine.unexplained, f"{Machine.unexplained} differences, printed above"
