"""A fake member, and a broken one: messages in flight, changed so that no correct member can have sent them.

A stranger (a non-member) repeats the message of a member under an id that is in no configuration. A broken member, or
one of another version, sends malformed messages: numbers out of range, entries with a gap, commands that cannot be
applied, invalid configurations. These messages bypass the Hello, which in production refuses strangers, and then go
through the same validation as in production. A message that is malformed by itself has to be refused (I17); no message
may break an invariant.

Well-formed messages are never forged: Raft promises nothing if a member lies about its votes or its entries.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random

from holdfast.kv.store import MemoryStore
from holdfast.machine import FORMAT
from holdfast.member import codec
from holdfast.member.core import MemberCore
from holdfast.member.interface import SnapshotOffered
from holdfast.member.validate import MAX_INDEX, MAX_TERM, MAX_TERM_JUMP
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.messages import Message

from holdfast_lab.sim.cluster import Cluster
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.violation import check

STRANGERS = 0xBAD00000  # ids that no member has
BY_ITSELF, BY_WHAT_IS_KNOWN = True, False  # whether it is malformed independent of the receiver's state
_HUGE = (MAX_INDEX, (1 << 63) + 5, (1 << 64) - 1)

_Wire = raft_pb2.PeerMessage
_Forgery = Callable[[_Wire, MemberCore, int, Random], bool]


class Forger:
    """Observes messages, and repeats them with errors."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._heard: deque[Message] = deque(maxlen=64)
        self._owed: Counter[int] = Counter()  # member -> refusals that its next turn has to produce

    def hear(self, message: Message) -> None:
        if message.to < STRANGERS:
            self._heard.append(message)

    def stepped(self, node: Node, refused: list[tuple[int, str]]) -> None:
        owed = self._owed.pop(node.id, 0)
        if refused:
            self._world.sometimes("malformed message refused")
        check(len(refused) >= owed, "I17", f"{node.id:x} refused {refused} of {owed} malformed messages")

    def gone(self, node: Node) -> None:
        self._owed.pop(node.id, None)

    def act(self, chance: Random) -> bool:
        """Send one forged message; the nemesis calls this at its rate."""
        if not self._heard:
            return False
        message = chance.choice(self._heard)
        node = self._cluster.nodes[message.to]
        if node.core is None:
            return False
        draw = chance.random()
        if draw < 0.3:
            return self._stranger(node, message, chance)
        if draw < 0.4:
            return self._second_leader(node, node.core, chance)
        wire = codec.encode(message)
        return self._malformed(node, node.core, message.frm, wire, chance)

    def _stranger(self, node: Node, message: Message, chance: Random) -> bool:
        self._world.sometimes("stranger heard")
        self._say(node, STRANGERS + chance.randrange(3), codec.encode(message))
        return True

    def _second_leader(self, node: Node, core: MemberCore, chance: Random) -> bool:
        """A message that only a leader sends, in a term that has another leader."""
        if core.leader == 0:
            return False
        frm = chance.choice([m for m in (*core.raft.conf.members(), STRANGERS + 3) if m != core.leader])
        if chance.random() < 0.5:
            index, term = core.machine.applied_index, core.machine.applied_term
            node.give(SnapshotOffered(index, term, frm, core.term, MemoryStore))
        else:
            beat = raft_pb2.Heartbeat(commit=0, round=1)
            self._say(node, frm, _Wire(term=core.term, heartbeat=beat))
        self._world.sometimes("second leader heard")
        return True

    def _malformed(self, node: Node, core: MemberCore, frm: int, wire: _Wire, chance: Random) -> bool:
        kinds = (*_FORGERIES.get(wire.WhichOneof("body") or "", ()), _term)
        by_itself = chance.choice(kinds)(wire, core, frm, chance)
        try:
            codec.decode(wire, node.id, frm)
        except codec.Malformed as malformed:
            self._world.sometimes("malformed configuration refused")
            self._world.note(f"refused on the wire: {malformed}")
            return True
        if by_itself:
            self._owed[node.id] += 1
        self._say(node, frm, wire)
        return True

    def _say(self, node: Node, frm: int, wire: _Wire) -> None:
        self._world.note(f"forged {frm:x}->{node.id:x} {wire.WhichOneof('body')} of term {wire.term}")
        message = codec.decode(wire, node.id, frm)
        assert message is not None
        node.receive(message)


# ---- errors in messages: each changes the message, and returns whether it is malformed by itself ------------------


def _term(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    wire.term = chance.choice((MAX_TERM, (1 << 64) - 1, core.term + 2 * MAX_TERM_JUMP))
    return BY_ITSELF


def _gap(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    entries = wire.append.entries
    if not entries:
        return _append_place(wire, core, frm, chance)
    if len(entries) > 1 and chance.random() < 0.5:
        del entries[chance.randrange(len(entries) - 1)]
    else:
        shift = chance.choice((1, 2, 1000))
        for entry in entries:
            entry.index += shift
    return BY_ITSELF


def _entry_term(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    if not wire.append.entries:
        return _append_place(wire, core, frm, chance)
    chance.choice(wire.append.entries).term = wire.term + chance.choice((1, 7, 1 << 40))
    return BY_ITSELF


def _entry_data(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    if not wire.append.entries:
        return _append_place(wire, core, frm, chance)
    chance.choice(wire.append.entries).data = chance.choice(_NO_COMMANDS)
    return BY_ITSELF


def _entry_conf(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    if not wire.append.entries:
        return _append_place(wire, core, frm, chance)
    chance.choice(wire.append.entries).conf.CopyFrom(chance.choice(_NO_CONFIGURATIONS))
    return BY_ITSELF


def _append_place(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    draw = chance.random()
    if draw < 0.4:
        wire.append.prev_index = chance.choice(_HUGE)
    elif draw < 0.7:
        wire.append.commit = chance.choice(_HUGE)
    else:
        wire.append.prev_term = wire.term + chance.choice((1, 1 << 40))
    return BY_ITSELF


def _rewritten(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    """Change the terms of entries of which the first is committed at the receiver."""
    append, log = wire.append, core.raft.log
    known = append.prev_index < core.raft.commit and log.term(append.prev_index) == append.prev_term
    if not append.entries or not known or append.prev_term == append.entries[0].term or wire.term < core.term:
        return _append_place(wire, core, frm, chance)
    for entry in append.entries:
        entry.term = append.prev_term
    return BY_WHAT_IS_KNOWN


def _reply(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    reply = wire.append_reply
    draw = chance.random()
    if draw < 0.5:
        reply.ok, reply.index, wire.term = True, core.raft.log.last + chance.choice((100, 1 << 40)), core.term
        return BY_WHAT_IS_KNOWN
    if draw < 0.7:
        reply.index = chance.choice(_HUGE)
    elif draw < 0.9:
        reply.hint_index = chance.choice(_HUGE)
    else:
        reply.hint_term = MAX_TERM
    return BY_ITSELF


def _heartbeat(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    beat = wire.heartbeat
    draw = chance.random()
    # A leader sends a possible commit index beyond the receiver's log to a member that lost entries which it has
    # acknowledged (`Raft.acknowledged`). Forging that would be a well-formed lie, so it is not done.
    if draw < 0.4:
        beat.commit = chance.choice(_HUGE)
    elif draw < 0.7:
        beat.round = chance.choice(_HUGE)
    else:
        beat.digest_index = chance.choice(_HUGE)
    return BY_ITSELF


def _heartbeat_reply(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    wire.heartbeat_reply.round = chance.choice(_HUGE)
    return BY_ITSELF


def _vote(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    vote = wire.vote if wire.HasField("vote") else wire.pre_vote
    if chance.random() < 0.5:
        vote.last_index = chance.choice(_HUGE)
    else:
        vote.last_term = wire.term + chance.choice((1, 1 << 40))
    return BY_ITSELF


def _read_reply(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    wire.read_reply.index = chance.choice(_HUGE)
    return BY_ITSELF


def _renew_reply(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    wire.renew_reply.ttls.append(5)
    return BY_ITSELF


def _forward(wire: _Wire, core: MemberCore, frm: int, chance: Random) -> bool:
    """A bad forwarded command: a leader refuses it; other members accept no forwarded commands at all."""
    named = raft_pb2.Command(format=1, origin=frm, incarnation=1 << 40, seq=1)
    put = rpc_pb2.PutRequest(key=b"k/forged")
    lease = raft_pb2.LeaseCheckpoint(ids=[1], remaining_seconds=[1])
    version = raft_pb2.ClusterVersion(version="9.9.9")
    wrong = chance.choice(
        (
            raft_pb2.Command(put=put, origin=frm + 1),
            raft_pb2.Command(put=put, system=True),
            raft_pb2.Command(put=rpc_pb2.PutRequest()),
            raft_pb2.Command(lease_checkpoint=lease),
            raft_pb2.Command(cluster_version=version, system=True),
            raft_pb2.Command(auth=raft_pb2.AuthChange()),
            None,
        )
    )
    data = chance.choice(_NO_COMMANDS)
    if wrong is not None:
        named.MergeFrom(wrong)
        data = named.SerializeToString()
    wire.forward.commands[:] = [data]
    return BY_WHAT_IS_KNOWN


_NO_COMMANDS = (
    b"\xff\xff\xff",
    b"\x00",
    raft_pb2.Command(format=FORMAT + 97, put=rpc_pb2.PutRequest(key=b"k/forged")).SerializeToString(),
    raft_pb2.Command(put=rpc_pb2.PutRequest(key=b"k/forged")).SerializeToString(),  # of no format
    raft_pb2.Command(format=FORMAT).SerializeToString(),  # without an operation
    raft_pb2.Command(format=1, cluster_version=raft_pb2.ClusterVersion(version="x")).SerializeToString(),
)
_NO_CONFIGURATIONS = (
    raft_pb2.ConfState(),
    raft_pb2.ConfState(learners=[1]),
    raft_pb2.ConfState(voters=[0]),
    raft_pb2.ConfState(voters=[2, 1]),
    raft_pb2.ConfState(voters=[1, 1]),
    raft_pb2.ConfState(voters=[1], learners=[1]),
    raft_pb2.ConfState(voters=[1], learners_next=[2]),
)
_FORGERIES: dict[str, tuple[_Forgery, ...]] = {
    "append": (_gap, _entry_term, _entry_data, _entry_conf, _append_place, _rewritten),
    "append_reply": (_reply,),
    "heartbeat": (_heartbeat,),
    "heartbeat_reply": (_heartbeat_reply,),
    "vote": (_vote,),
    "pre_vote": (_vote,),
    "read_reply": (_read_reply,),
    "renew_reply": (_renew_reply,),
    "forward": (_forward,),
}
