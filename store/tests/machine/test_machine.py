"""The state machine accepts any entry: what it cannot apply it refuses, on all members alike, without an exception.

An exception in `apply` would end every member at the same entry, and again at every start.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from google.protobuf.message import Message
from holdfast.kv.store import MemoryStore
from holdfast.machine import Genesis, Machine
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.raft.log import Entry
from holdfast.status import RequestError

from ..fuzz.hostile import message

KINDS: dict[str, type[Message]] = {
    "put": rpc_pb2.PutRequest,
    "put_sequential": holdfast_pb2.PutSequentialRequest,
    "delete_range": rpc_pb2.DeleteRangeRequest,
    "txn": rpc_pb2.TxnRequest,
    "compact": rpc_pb2.CompactionRequest,
    "lease_grant": raft_pb2.LeaseGrant,
    "lease_revoke": raft_pb2.LeaseRevoke,
    "alarm": rpc_pb2.AlarmRequest,
    "auth": raft_pb2.AuthChange,
    "attributes": raft_pb2.MemberAttributes,
    "claim": raft_pb2.Claim,
    "cluster_version": raft_pb2.ClusterVersion,
}
SESSION_KINDS = (
    "put",
    "put_sequential",
    "delete_range",
    "txn",
    "compact",
    "lease_grant",
    "lease_revoke",
    "auth",
    "alarm",
)


def _machine() -> Machine:
    store = MemoryStore()
    Genesis((raft_pb2.MemberInfo(id=1, name="m"),)).write(store)
    return Machine(store)


@pytest.mark.parametrize("seed", range(60))
def test_any_command_is_done_or_refused_and_the_same_on_every_member(seed: int) -> None:
    chance = random.Random(seed)
    machines = [_machine(), _machine()]
    for index in range(2, 400):
        kind = chance.choice(list(KINDS))
        command = raft_pb2.Command(format=1, origin=1, incarnation=1, seq=index, window_low=index, session=0)
        if chance.random() < 0.3:
            command.principal, command.auth_revision = chance.choice(["root", "a", ""]), chance.randrange(5)
        if chance.random() < 0.2 and kind in SESSION_KINDS:
            command.session, command.session_seq, command.session_low = 101, chance.randrange(9), 1
        getattr(command, kind).CopyFrom(message(chance, KINDS[kind]))
        if kind == "auth" and command.auth.WhichOneof("op") is None:
            continue  # of an unknown kind: a newer program made it
        entry = Entry(index, 1, command.SerializeToString())
        results = []
        for machine in machines:
            machine.applied_index = index - 1
            applied = machine.apply(entry)
            machine.flush()
            results.append(None if applied is None else (applied.response, repr(applied.error), applied.revision))
        assert results[0] == results[1]
        assert machines[0].digest == machines[1].digest
    assert Machine(machines[0].store).digest == machines[0].digest  # what it wrote can be read again


def test_every_kind_of_command_has_rights_or_is_known_to_need_none_here() -> None:
    """A new kind must not be open to every caller while auth is on."""
    machine = Machine(MemoryStore())
    machine.auth.enabled = True
    for field in raft_pb2.Command.DESCRIPTOR.oneofs_by_name["op"].fields:
        command = raft_pb2.Command(principal="none")
        getattr(command, field.name).SetInParent()
        with suppress(RequestError):
            machine.check_rights(command)
    with pytest.raises(AssertionError, match="no rights are defined"):
        machine.check_rights(raft_pb2.Command(principal="none"))
