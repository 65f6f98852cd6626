from holdfast.proto import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CellIdentity(_message.Message):
    __slots__ = ("cell", "cluster_id", "version", "cells", "after", "members")
    CELL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    cell: str
    cluster_id: int
    version: int
    cells: _containers.RepeatedScalarFieldContainer[str]
    after: _containers.RepeatedScalarFieldContainer[str]
    members: _containers.RepeatedCompositeFieldContainer[CellMember]
    def __init__(self, cell: _Optional[str] = ..., cluster_id: _Optional[int] = ..., version: _Optional[int] = ..., cells: _Optional[_Iterable[str]] = ..., after: _Optional[_Iterable[str]] = ..., members: _Optional[_Iterable[_Union[CellMember, _Mapping]]] = ...) -> None: ...

class CellMember(_message.Message):
    __slots__ = ("cell", "cluster_id", "since")
    CELL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    cell: str
    cluster_id: int
    since: int
    def __init__(self, cell: _Optional[str] = ..., cluster_id: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class RegisterRecord(_message.Message):
    __slots__ = ("value", "changes", "recent")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    changes: int
    recent: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, value: _Optional[bytes] = ..., changes: _Optional[int] = ..., recent: _Optional[_Iterable[bytes]] = ...) -> None: ...

class TransactionPart(_message.Message):
    __slots__ = ("txn", "session", "cells", "compares", "writes", "sessions", "begun")
    TXN_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    COMPARES_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    txn: str
    session: str
    cells: _containers.RepeatedScalarFieldContainer[str]
    compares: _containers.RepeatedCompositeFieldContainer[_rpc_pb2.Compare]
    writes: _containers.RepeatedCompositeFieldContainer[_rpc_pb2.RequestOp]
    sessions: _containers.RepeatedScalarFieldContainer[str]
    begun: int
    def __init__(self, txn: _Optional[str] = ..., session: _Optional[str] = ..., cells: _Optional[_Iterable[str]] = ..., compares: _Optional[_Iterable[_Union[_rpc_pb2.Compare, _Mapping]]] = ..., writes: _Optional[_Iterable[_Union[_rpc_pb2.RequestOp, _Mapping]]] = ..., sessions: _Optional[_Iterable[str]] = ..., begun: _Optional[int] = ...) -> None: ...

class TransactionOutcome(_message.Message):
    __slots__ = ("cells", "sessions")
    CELLS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    cells: _containers.RepeatedScalarFieldContainer[str]
    sessions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cells: _Optional[_Iterable[str]] = ..., sessions: _Optional[_Iterable[str]] = ...) -> None: ...

class QueueMessage(_message.Message):
    __slots__ = ("compares", "writes")
    COMPARES_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    compares: _containers.RepeatedCompositeFieldContainer[_rpc_pb2.Compare]
    writes: _containers.RepeatedCompositeFieldContainer[_rpc_pb2.RequestOp]
    def __init__(self, compares: _Optional[_Iterable[_Union[_rpc_pb2.Compare, _Mapping]]] = ..., writes: _Optional[_Iterable[_Union[_rpc_pb2.RequestOp, _Mapping]]] = ...) -> None: ...

class LeaseRecord(_message.Message):
    __slots__ = ("holder", "tenure", "fence", "renewals", "ttl_ms", "released")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    TENURE_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    holder: bytes
    tenure: bytes
    fence: int
    renewals: int
    ttl_ms: int
    released: bool
    def __init__(self, holder: _Optional[bytes] = ..., tenure: _Optional[bytes] = ..., fence: _Optional[int] = ..., renewals: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., released: _Optional[bool] = ...) -> None: ...

class ReplicationRecord(_message.Message):
    __slots__ = ("source", "cluster_id", "epoch", "lineage", "revision", "path")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    source: str
    cluster_id: int
    epoch: int
    lineage: int
    revision: int
    path: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, source: _Optional[str] = ..., cluster_id: _Optional[int] = ..., epoch: _Optional[int] = ..., lineage: _Optional[int] = ..., revision: _Optional[int] = ..., path: _Optional[_Iterable[int]] = ...) -> None: ...
