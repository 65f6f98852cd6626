"""The requests of registers as transactions of a cell.

One transaction checks that the cell is still the one that is meant, compares the ballot, and changes the acceptor: what
the functions of `cells.acceptor` say, in the cell's own log. A plain etcd would do.

    /cells/self                       the cell's identity; who asks names the one that it expects
    /cells/registers/NAME/promised    16 bytes, see `Ballot.packed`
    /cells/registers/NAME/accepted    the ballot, and the value behind it
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from holdfast.cells.acceptor import NOTHING, Accepted, Acceptor, Promise, Refused, Taken
from holdfast.cells.ballot import NONE, PACKED_BYTES, Ballot
from holdfast.cells.cell_set import CellSet
from holdfast.cells.identity import Identity
from holdfast.client.txn import Key, Op, Ops
from holdfast.proto import rpc_pb2

SELF = b"/cells/self"
REGISTERS = b"/cells/registers/"


class AnotherIdentity(NamedTuple):
    """The cell is not what was expected. `found`: its identity; empty: it has none."""

    found: bytes

    @property
    def set(self) -> CellSet | None:
        return Identity.unpacked(self.found).set if self.found else None


def _promised(name: str) -> bytes:
    return REGISTERS + name.encode() + b"/promised"


def accepted_key(name: str) -> bytes:
    """Where a cell keeps what it has accepted; `accepted` reads it."""
    return REGISTERS + name.encode() + b"/accepted"


def prepare(identity: bytes, name: str, ballot: Ballot) -> rpc_pb2.TxnRequest:
    promise = [Ops.put(_promised(name), ballot.packed()), Ops.get(accepted_key(name))]
    return _unless_higher_is_promised(identity, name, ballot, promise)


def accept(identity: bytes, name: str, ballot: Ballot, value: bytes) -> rpc_pb2.TxnRequest:
    take = [Ops.put(_promised(name), ballot.packed()), Ops.put(accepted_key(name), ballot.packed() + value)]
    return _unless_higher_is_promised(identity, name, ballot, take)


def look(identity: bytes, name: str) -> rpc_pb2.TxnRequest:
    """Read the acceptor, and change nothing."""
    return _of_cell(identity, [Ops.get(_promised(name)), Ops.get(accepted_key(name))])


def forget(identity: bytes, names: Iterable[str]) -> rpc_pb2.TxnRequest:
    """Remove registers that nobody will ask for again. An acceptor that forgets may accept what it had refused."""
    return _of_cell(identity, [Ops.delete(REGISTERS + name.encode() + b"/", prefix=True) for name in names])


def register_of(key: bytes) -> str:
    """The name of the register that this key of a cell belongs to."""
    return key.removeprefix(REGISTERS).rpartition(b"/")[0].decode()


def _unless_higher_is_promised(identity: bytes, name: str, ballot: Ballot, then: list[Op]) -> rpc_pb2.TxnRequest:
    # A compare of a key that is not there does not hold, so the first request finds nothing that is higher.
    higher = Key(_promised(name)).value > ballot.packed()
    inner = rpc_pb2.TxnRequest(compare=[higher], success=[Ops.get(_promised(name))], failure=then)
    return _of_cell(identity, [Op(request_txn=inner)])


def _of_cell(identity: bytes, then: list[Op]) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(compare=[Key(SELF).value == identity], success=then, failure=[Ops.get(SELF)])


# ---- answers -----------------------------------------------------------------------------------------------


def prepared(answer: rpc_pb2.TxnResponse) -> Promise | Refused | AnotherIdentity:
    if not answer.succeeded:
        return AnotherIdentity(_value(answer, 0) or b"")
    inner = answer.responses[0].response_txn
    return Refused(_ballot(_value(inner, 0))) if inner.succeeded else Promise(accepted(_value(inner, 1)))


def taken(answer: rpc_pb2.TxnResponse) -> Taken | Refused | AnotherIdentity:
    if not answer.succeeded:
        return AnotherIdentity(_value(answer, 0) or b"")
    inner = answer.responses[0].response_txn
    return Refused(_ballot(_value(inner, 0))) if inner.succeeded else Taken()


def seen(answer: rpc_pb2.TxnResponse) -> Acceptor | AnotherIdentity:
    if not answer.succeeded:
        return AnotherIdentity(_value(answer, 0) or b"")
    return Acceptor(_ballot(_value(answer, 0)), accepted(_value(answer, 1)))


def _value(answer: rpc_pb2.TxnResponse, at: int) -> bytes | None:
    kvs = answer.responses[at].response_range.kvs
    return kvs[0].value if kvs else None


def _ballot(value: bytes | None) -> Ballot:
    return NONE if value is None else Ballot.unpacked(value)


def accepted(value: bytes | None) -> Accepted:
    """Raises ValueError."""
    if value is None:
        return NOTHING
    return Accepted(Ballot.unpacked(value[:PACKED_BYTES]), value[PACKED_BYTES:])
