"""Commands that look at many rows are applied a few at a time, and clients take turns to put them into the log."""

from __future__ import annotations

from holdfast.kv.space import WRITTEN
from holdfast.member.core import APPLY_ROWS
from holdfast.member.heavy import AT_A_TIME, LIGHT, HeavyProposals
from holdfast.member.interface import Appended, Input, Propose
from holdfast.proto import raft_pb2, rpc_pb2

from tests.member.member import LATE, Members

KEYS = 3000


class Core:
    def __init__(self) -> None:
        self.given: list[int] = []
        self.heavy = HeavyProposals(self._give)

    def _give(self, proposal: Propose) -> bool:
        if proposal.deadline_ns == 0:
            return False
        self.given.append(proposal.id)
        return True

    def propose(self, id: int, cost: int, owner: str, *, late: bool = False) -> None:
        self.heavy.propose(Propose(id, raft_pb2.Command(), 0 if late else LATE), cost, owner)


def test_connections_take_turns_and_few_are_under_way() -> None:
    """Two hundred transactions with a compare of 9,990 keys each were in the log before another client's put."""
    core = Core()
    for id in range(200):
        core.propose(id, AT_A_TIME, "greedy")
    assert core.given == [0]
    core.propose(1000, AT_A_TIME, "polite")
    core.heavy.answered(4711)  # another one, that was not heavy
    assert core.given == [0]
    core.heavy.answered(0)
    core.heavy.answered(1)
    assert core.given == [0, 1, 1000]
    for id in (1000, *range(2, 200)):
        core.heavy.answered(id)
    assert core.given == [0, 1, 1000, *range(2, 200)]


def test_less_heavy_ones_are_under_way_together() -> None:
    core = Core()
    for id in range(100):
        core.propose(id, LIGHT + 1, "one")
    assert len(core.given) == AT_A_TIME // (LIGHT + 1) + 1
    for id in range(100):
        core.heavy.answered(id)
    assert core.given == list(range(100))


def test_one_that_waits_can_be_withdrawn_and_a_late_one_is_not_proposed() -> None:
    core = Core()
    core.propose(1, AT_A_TIME, "a")
    core.propose(2, AT_A_TIME, "a")
    core.propose(3, AT_A_TIME, "a", late=True)
    core.propose(4, AT_A_TIME, "a")
    assert core.heavy.withdraw("a", 2)
    assert not core.heavy.withdraw("a", 1)
    assert not core.heavy.withdraw("b", 4)
    core.heavy.answered(1)
    assert core.given == [1, 4]


def test_a_step_applies_rows_up_to_a_budget_and_then_one_more_entry() -> None:
    members = Members(1)
    leader = members.elect(1)
    for at in range(0, KEYS, 100):
        txn = rpc_pb2.TxnRequest()
        for n in range(at, at + 100):
            txn.success.add().request_put.key = b"k/%06d" % n
        members.ask(1, at, raft_pb2.Command(txn=txn))
    compare = rpc_pb2.Compare(key=b"k/", range_end=b"k0", target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.GREATER)
    reads = rpc_pb2.TxnRequest(compare=[compare])
    reads.success.add().request_put.key = b"k/000000"
    commands = [reads] * 20 + [rpc_pb2.TxnRequest(success=txn.success)] * 20
    out = leader.step(members.now, [Propose(10_000 + n, raft_pb2.Command(txn=t), LATE) for n, t in enumerate(commands)])
    assert out.append is not None
    space, answered, looked = leader.machine.space, 0, list[int]()
    inputs: list[Input] = [Appended(out.append.seq)]
    while answered < len(commands):
        before = space.looked_at
        out = leader.step(members.now, inputs)
        inputs = []
        answered += len(out.answers)
        looked.append(space.looked_at - before)
        assert out.more is (answered < len(commands))
    assert max(looked) <= APPLY_ROWS + KEYS + WRITTEN
    assert len(looked) >= 20 + 20 * 100 * WRITTEN // (APPLY_ROWS + 100 * WRITTEN)
