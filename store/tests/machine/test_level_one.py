"""At level 1 of the cluster this program applies every command as the program of 0.1.0 does, to the byte.

Members of both apply one log while a cluster is upgraded. Random commands, with users, leases and sessions, are applied
by both programs, each in its own process; after each of them the rows and the answer have to be the same.
"""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest
from google.protobuf.message import Message
from holdfast.proto import auth_pb2, raft_pb2, rpc_pb2

from ..integration.versions import WHEEL

COMMANDS = 700

# Reads commands as lines of hexadecimal digits; says after each what it answered, and a hash of all rows.
APPLY = """
import sys
from hashlib import blake2b
from holdfast.kv.store import Family, MemoryStore
from holdfast.machine import Genesis, Machine
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry

store = MemoryStore()
Genesis((raft_pb2.MemberInfo(id=1, name="m"),), "0.1.0").write(store)
machine = Machine(store)
for index, line in enumerate(sys.stdin, 2):
    done = machine.apply(Entry(index, 1, bytes.fromhex(line), None))
    machine.flush()
    rows = blake2b(b"".join(k + v for f in Family for k, v in store.scan(f, b"", None)), digest_size=8).hexdigest()
    error = done and done.error and (int(done.error.code), done.error.message)
    response = done and done.response and done.response.SerializeToString(deterministic=True).hex()
    print(rows, done and done.revision, error, response)
"""

KEYS = [b"/a", b"/a/1", b"/a/2", b"/b", b"/eve/1", b"/eve/2", b"\x00"]
ENDS = [b"", b"", b"\x00", b"/a0", b"/b0", b"/eve0"]
LEASES = [1, 2, 3, -5]
USERS = ["root", "eve", "mat"]
HASH = "aGFzaA=="
# Only these can be named by a session in this program; the one before kept answers of others, and could not read them.
NAMED = ("put", "txn", "delete_range", "compact", "lease_grant", "lease_revoke")


class Commands:
    """Random ones, also wrong ones, over few names so that they meet."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self._seqs: dict[int, int] = {}

    def all(self) -> list[bytes]:
        made = [self._named(n, op).SerializeToString() for n, op in enumerate(self._with_users() + self._any(), 1)]
        for at in self.random.sample(range(20, len(made)), len(made) // 20):
            made[at] = made[at - self.random.randrange(20)]  # one comes again
        return made

    def _named(self, n: int, op: raft_pb2.Command) -> raft_pb2.Command:
        r = self.random
        op.format, op.origin, op.seq, op.wall_ms = 1, r.choice([1, 1, 2]), n, n
        op.incarnation = 1 if 2 * n < COMMANDS or r.random() < 0.1 else 2
        op.window_low = max(1, n - r.randrange(5))
        op.principal = op.principal or r.choice([*USERS, "root", "root", "zed", ""])
        op.auth_revision = 1 << 40 if n < 20 or r.random() < 0.9 else 5
        if op.WhichOneof("op") in NAMED and r.random() < 0.4:
            op.session = r.choice(LEASES)
            op.session_seq = max(1, self._seqs.get(op.session, 0) + r.choice([1, 1, 1, 0, 0, -1, -3]))
            self._seqs[op.session] = max(op.session_seq, self._seqs.get(op.session, 0))
            op.session_low = max(1, op.session_seq - r.randrange(8))
        return op

    def _with_users(self) -> list[raft_pb2.Command]:
        ops = [self._auth("user_add", name=user, hashedPassword=HASH) for user in USERS]
        ops += [self._auth("role_add", name=role) for role in ("root", "r")]
        ops += [self._auth("user_grant_role", user=user, role=role) for user, role in (("root", "root"), ("eve", "r"))]
        mine = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"/eve/", range_end=b"/eve0")
        return [*ops, self._auth("role_grant_permission", name="r", perm=mine), self._auth("enable")]

    def _auth(self, kind: str, **fields: object) -> raft_pb2.Command:
        command = raft_pb2.Command(principal="root")
        field = getattr(command.auth, kind)
        field.SetInParent()
        field.MergeFrom(type(field)(**fields))
        return command

    def _any(self) -> list[raft_pb2.Command]:
        return [self.random.choice(self.KINDS)(self) for _ in range(COMMANDS)]

    def _put(self) -> rpc_pb2.PutRequest:
        r = self.random
        lease = r.choice([0, 0, 0, *LEASES])
        flags = {name: r.random() < 0.15 for name in ("prev_kv", "ignore_value", "ignore_lease")}
        return rpc_pb2.PutRequest(key=r.choice(KEYS), value=b"%d" % r.randrange(9), lease=lease, **flags)

    def _delete(self) -> rpc_pb2.DeleteRangeRequest:
        r = self.random
        return rpc_pb2.DeleteRangeRequest(key=r.choice(KEYS), range_end=r.choice(ENDS), prev_kv=r.random() < 0.3)

    def _range(self) -> rpc_pb2.RangeRequest:
        r = self.random
        order = {"sort_order": r.randrange(3), "sort_target": r.randrange(5), "limit": r.choice([0, 0, 1, 2])}
        revision = r.choice([0, 0, 0, 3, 50, 9999])
        return rpc_pb2.RangeRequest(key=r.choice(KEYS), range_end=r.choice(ENDS), revision=revision, **order)  # type: ignore[arg-type]

    def _txn(self, depth: int = 0) -> rpc_pb2.TxnRequest:
        r = self.random
        request = rpc_pb2.TxnRequest()
        for _ in range(r.randrange(3)):
            compare = request.compare.add(key=r.choice(KEYS), target=r.randrange(5), result=r.randrange(4))
            compare.range_end = r.choice(ENDS)
            name = ("version", "create_revision", "mod_revision", "value", "lease")[compare.target]
            setattr(compare, name, b"%d" % r.randrange(9) if name == "value" else r.randrange(5))
        for branch in (request.success, request.failure):
            for kind in r.choices(("put", "delete_range", "range", "txn"), k=r.randrange(3)):
                made: Message = {"put": self._put, "delete_range": self._delete, "range": self._range}.get(
                    kind, lambda: self._txn(depth + 1) if depth < 2 else rpc_pb2.TxnRequest()
                )()
                getattr(branch.add(), f"request_{kind}").CopyFrom(made)
        return request

    def _lease(self) -> raft_pb2.Command:
        r = self.random
        grant = raft_pb2.LeaseGrant(id=r.choice(LEASES), ttl_seconds=r.choice([5, 5, 9, 0, 10**10]))
        grant.minted, grant.session = r.random() < 0.5, r.random() < 0.5
        return raft_pb2.Command(lease_grant=grant)

    def _users(self) -> raft_pb2.Command:
        r = self.random
        user, role = r.choice(["eve", "mat", "zed"]), r.choice(["r", "s"])
        perm = auth_pb2.Permission(permType=r.randrange(3), key=r.choice(KEYS), range_end=r.choice(ENDS))  # type: ignore[arg-type]
        kinds: list[tuple[str, dict[str, object]]] = [
            ("user_add", {"name": user, "hashedPassword": HASH}),
            ("user_change_password", {"name": user, "hashedPassword": HASH}),
            ("user_delete", {"name": user}),
            ("user_grant_role", {"user": user, "role": role}),
            ("user_revoke_role", {"name": user, "role": role}),
            ("role_add", {"name": role}),
            ("role_grant_permission", {"name": role, "perm": perm}),
            ("role_revoke_permission", {"role": role, "key": perm.key, "range_end": perm.range_end}),
            ("role_delete", {"role": role}),
            (r.choice(["enable", "enable", "enable", "disable"]), {}),
        ]
        kind, fields = r.choice(kinds)
        command = self._auth(kind, **fields)
        command.principal = r.choice(["root", "root", "eve"])
        return command

    def _of_the_cluster(self) -> raft_pb2.Command:
        r = self.random
        command = raft_pb2.Command(system=True)
        if r.random() < 0.5:
            command.lease_checkpoint.ids.append(r.choice(LEASES))
            command.lease_checkpoint.remaining_seconds.append(r.randrange(3))
        else:
            # An alarm refuses most commands while it is on.
            action, alarm = 1 if r.random() < 0.1 else 2, r.choice([1, 2])
            command.alarm.CopyFrom(rpc_pb2.AlarmRequest(action=action, memberID=1, alarm=alarm))  # type: ignore[arg-type]
        return command

    KINDS = (
        *[lambda self: raft_pb2.Command(put=self._put())] * 6,
        *[lambda self: raft_pb2.Command(txn=self._txn())] * 5,
        *[lambda self: raft_pb2.Command(delete_range=self._delete())] * 2,
        lambda self: raft_pb2.Command(compact=rpc_pb2.CompactionRequest(revision=self.random.randrange(1, 60))),
        *[_lease] * 3,
        lambda self: raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=self.random.choice(LEASES))),
        *[_users] * 3,
        _of_the_cluster,
    )


def applied(commands: list[bytes], environment: dict[str, str]) -> list[str]:
    lines = "".join(command.hex() + "\n" for command in commands)
    done = subprocess.run(
        [sys.executable, "-P", "-c", APPLY], input=lines, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("seed", range(4))
def test_both_programs_apply_every_command_alike(seed: int) -> None:
    commands = Commands(seed).all()
    old = applied(commands, {"PYTHONPATH": str(WHEEL)})
    new = applied(commands, {})
    assert len(old) == len(commands)
    for n, (was, now) in enumerate(zip(old, new, strict=True)):
        assert now == was, raft_pb2.Command.FromString(commands[n])
    said = "\n".join(new)
    assert all(text in said for text in ("permission denied", "session has ended", "not kept any more"))
