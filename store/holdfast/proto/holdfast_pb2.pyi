from holdfast.proto import auth_pb2 as _auth_pb2
from holdfast.proto import kv_pb2 as _kv_pb2
from holdfast.proto import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("volume_id", "cluster_id", "member_id", "state", "name", "version", "leader", "applied_index", "term", "epoch", "ready", "revision", "replicas", "connected", "staleness_ms", "path", "held", "site", "cluster_version")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EMPTY: _ClassVar[DescribeResponse.State]
        FORMED: _ClassVar[DescribeResponse.State]
        MEMBER: _ClassVar[DescribeResponse.State]
        REMOVED: _ClassVar[DescribeResponse.State]
        REPLICA: _ClassVar[DescribeResponse.State]
    EMPTY: DescribeResponse.State
    FORMED: DescribeResponse.State
    MEMBER: DescribeResponse.State
    REMOVED: DescribeResponse.State
    REPLICA: DescribeResponse.State
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    STALENESS_MS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    cluster_id: int
    member_id: int
    state: DescribeResponse.State
    name: str
    version: str
    leader: int
    applied_index: int
    term: int
    epoch: int
    ready: bool
    revision: int
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaReport]
    connected: bool
    staleness_ms: int
    path: FollowPath
    held: _containers.RepeatedCompositeFieldContainer[KeyRange]
    site: SiteState
    cluster_version: str
    def __init__(self, volume_id: _Optional[int] = ..., cluster_id: _Optional[int] = ..., member_id: _Optional[int] = ..., state: _Optional[_Union[DescribeResponse.State, str]] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., leader: _Optional[int] = ..., applied_index: _Optional[int] = ..., term: _Optional[int] = ..., epoch: _Optional[int] = ..., ready: _Optional[bool] = ..., revision: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ReplicaReport, _Mapping]]] = ..., connected: _Optional[bool] = ..., staleness_ms: _Optional[int] = ..., path: _Optional[_Union[FollowPath, _Mapping]] = ..., held: _Optional[_Iterable[_Union[KeyRange, _Mapping]]] = ..., site: _Optional[_Union[SiteState, _Mapping]] = ..., cluster_version: _Optional[str] = ...) -> None: ...

class FormRequest(_message.Message):
    __slots__ = ("cluster_id", "volume_id")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    volume_id: int
    def __init__(self, cluster_id: _Optional[int] = ..., volume_id: _Optional[int] = ...) -> None: ...

class FormResponse(_message.Message):
    __slots__ = ("member_id",)
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    def __init__(self, member_id: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("cluster_id",)
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    def __init__(self, cluster_id: _Optional[int] = ...) -> None: ...

class OpenResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MembershipGetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("member", "caught_up", "match_index")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    member: _rpc_pb2.Member
    caught_up: bool
    match_index: int
    def __init__(self, member: _Optional[_Union[_rpc_pb2.Member, _Mapping]] = ..., caught_up: _Optional[bool] = ..., match_index: _Optional[int] = ...) -> None: ...

class MembershipGetResponse(_message.Message):
    __slots__ = ("header", "config_index", "members", "leader")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    config_index: int
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    leader: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., config_index: _Optional[int] = ..., members: _Optional[_Iterable[_Union[MemberStatus, _Mapping]]] = ..., leader: _Optional[int] = ...) -> None: ...

class MembershipChangeRequest(_message.Message):
    __slots__ = ("kind", "member_id", "name", "peer_urls", "expected_config_index", "together")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ADD_LEARNER: _ClassVar[MembershipChangeRequest.Kind]
        PROMOTE: _ClassVar[MembershipChangeRequest.Kind]
        REMOVE: _ClassVar[MembershipChangeRequest.Kind]
        DEMOTE: _ClassVar[MembershipChangeRequest.Kind]
    ADD_LEARNER: MembershipChangeRequest.Kind
    PROMOTE: MembershipChangeRequest.Kind
    REMOVE: MembershipChangeRequest.Kind
    DEMOTE: MembershipChangeRequest.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOGETHER_FIELD_NUMBER: _ClassVar[int]
    kind: MembershipChangeRequest.Kind
    member_id: int
    name: str
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    expected_config_index: int
    together: _containers.RepeatedCompositeFieldContainer[MembershipChangeRequest]
    def __init__(self, kind: _Optional[_Union[MembershipChangeRequest.Kind, str]] = ..., member_id: _Optional[int] = ..., name: _Optional[str] = ..., peer_urls: _Optional[_Iterable[str]] = ..., expected_config_index: _Optional[int] = ..., together: _Optional[_Iterable[_Union[MembershipChangeRequest, _Mapping]]] = ...) -> None: ...

class MembershipChangeResponse(_message.Message):
    __slots__ = ("header", "config_index")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    config_index: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., config_index: _Optional[int] = ...) -> None: ...

class SessionOpenRequest(_message.Message):
    __slots__ = ("ttl_seconds", "lock_delay_seconds")
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOCK_DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ttl_seconds: int
    lock_delay_seconds: int
    def __init__(self, ttl_seconds: _Optional[int] = ..., lock_delay_seconds: _Optional[int] = ...) -> None: ...

class SessionOpenResponse(_message.Message):
    __slots__ = ("header", "id", "ttl_seconds")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    id: int
    ttl_seconds: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., id: _Optional[int] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class PutSequentialRequest(_message.Message):
    __slots__ = ("prefix", "value", "lease")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    value: bytes
    lease: int
    def __init__(self, prefix: _Optional[bytes] = ..., value: _Optional[bytes] = ..., lease: _Optional[int] = ...) -> None: ...

class PutSequentialResponse(_message.Message):
    __slots__ = ("header", "key")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    key: bytes
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., key: _Optional[bytes] = ...) -> None: ...

class CacheHoldRequest(_message.Message):
    __slots__ = ("key", "range_end", "number", "acknowledged", "release")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    number: int
    acknowledged: int
    release: bool
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., number: _Optional[int] = ..., acknowledged: _Optional[int] = ..., release: _Optional[bool] = ...) -> None: ...

class CacheHoldResponse(_message.Message):
    __slots__ = ("number", "lease_ms", "revision", "invalidations", "cluster_id")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INVALIDATIONS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    number: int
    lease_ms: int
    revision: int
    invalidations: int
    cluster_id: int
    def __init__(self, number: _Optional[int] = ..., lease_ms: _Optional[int] = ..., revision: _Optional[int] = ..., invalidations: _Optional[int] = ..., cluster_id: _Optional[int] = ...) -> None: ...

class CachePrefixRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    def __init__(self, prefix: _Optional[bytes] = ...) -> None: ...

class CachePrefixResponse(_message.Message):
    __slots__ = ("header", "changed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    changed: bool
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class CacheListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CacheListResponse(_message.Message):
    __slots__ = ("header", "prefixes")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    prefixes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., prefixes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("key", "value", "deleted")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    deleted: bool
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ..., deleted: _Optional[bool] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("incarnation", "seq")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    seq: int
    def __init__(self, incarnation: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class DeliverRequest(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[ReportedBatch]
    def __init__(self, batches: _Optional[_Iterable[_Union[ReportedBatch, _Mapping]]] = ...) -> None: ...

class ReportedBatch(_message.Message):
    __slots__ = ("node", "incarnation", "seq", "entries")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    node: str
    incarnation: int
    seq: int
    entries: _containers.RepeatedCompositeFieldContainer[ReportedEntry]
    def __init__(self, node: _Optional[str] = ..., incarnation: _Optional[int] = ..., seq: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[ReportedEntry, _Mapping]]] = ...) -> None: ...

class ReportedEntry(_message.Message):
    __slots__ = ("key", "value", "deleted", "seq")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    deleted: bool
    seq: int
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ..., deleted: _Optional[bool] = ..., seq: _Optional[int] = ...) -> None: ...

class DeliverResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("header", "user", "roles", "auth_enabled", "auth_revision", "token_ends_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    AUTH_ENABLED_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ENDS_MS_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    user: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    auth_enabled: bool
    auth_revision: int
    token_ends_ms: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., user: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., auth_enabled: _Optional[bool] = ..., auth_revision: _Optional[int] = ..., token_ends_ms: _Optional[int] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("ranges", "revision", "cluster_id", "epoch")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[KeyRange]
    revision: int
    cluster_id: int
    epoch: int
    def __init__(self, ranges: _Optional[_Iterable[_Union[KeyRange, _Mapping]]] = ..., revision: _Optional[int] = ..., cluster_id: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("hashes",)
    class Hash(_message.Message):
        __slots__ = ("crc", "keys")
        CRC_FIELD_NUMBER: _ClassVar[int]
        KEYS_FIELD_NUMBER: _ClassVar[int]
        crc: int
        keys: int
        def __init__(self, crc: _Optional[int] = ..., keys: _Optional[int] = ...) -> None: ...
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedCompositeFieldContainer[VerifyResponse.Hash]
    def __init__(self, hashes: _Optional[_Iterable[_Union[VerifyResponse.Hash, _Mapping]]] = ...) -> None: ...

class KeyRange(_message.Message):
    __slots__ = ("key", "range_end")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("start", "probe", "report")
    START_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    start: FollowStart
    probe: Probe
    report: ReplicaReport
    def __init__(self, start: _Optional[_Union[FollowStart, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., report: _Optional[_Union[ReplicaReport, _Mapping]] = ...) -> None: ...

class FollowStart(_message.Message):
    __slots__ = ("cluster_id", "epoch", "watermark", "filter", "filter_version", "replica", "pool", "held", "held_watermark", "lineage", "rights", "resumes", "zstd")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    HELD_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    ZSTD_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    epoch: int
    watermark: int
    filter: _containers.RepeatedCompositeFieldContainer[KeyRange]
    filter_version: int
    replica: str
    pool: str
    held: HeldRanges
    held_watermark: int
    lineage: int
    rights: bool
    resumes: bool
    zstd: bool
    def __init__(self, cluster_id: _Optional[int] = ..., epoch: _Optional[int] = ..., watermark: _Optional[int] = ..., filter: _Optional[_Iterable[_Union[KeyRange, _Mapping]]] = ..., filter_version: _Optional[int] = ..., replica: _Optional[str] = ..., pool: _Optional[str] = ..., held: _Optional[_Union[HeldRanges, _Mapping]] = ..., held_watermark: _Optional[int] = ..., lineage: _Optional[int] = ..., rights: _Optional[bool] = ..., resumes: _Optional[bool] = ..., zstd: _Optional[bool] = ...) -> None: ...

class HeldRanges(_message.Message):
    __slots__ = ("ranges",)
    class Held(_message.Message):
        __slots__ = ("range", "since")
        RANGE_FIELD_NUMBER: _ClassVar[int]
        SINCE_FIELD_NUMBER: _ClassVar[int]
        range: KeyRange
        since: int
        def __init__(self, range: _Optional[_Union[KeyRange, _Mapping]] = ..., since: _Optional[int] = ...) -> None: ...
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[HeldRanges.Held]
    def __init__(self, ranges: _Optional[_Iterable[_Union[HeldRanges.Held, _Mapping]]] = ...) -> None: ...

class SiteState(_message.Message):
    __slots__ = ("site", "writer", "follows")
    SITE_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    site: str
    writer: str
    follows: bool
    def __init__(self, site: _Optional[str] = ..., writer: _Optional[str] = ..., follows: _Optional[bool] = ...) -> None: ...

class ReplicaReport(_message.Message):
    __slots__ = ("replica", "pool", "watermark", "filter_version", "epoch", "below", "volume_id", "upstream", "bound_seconds", "offline_since", "site")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    FILTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    BOUND_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OFFLINE_SINCE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    replica: str
    pool: str
    watermark: int
    filter_version: int
    epoch: int
    below: _containers.RepeatedCompositeFieldContainer[ReplicaReport]
    volume_id: int
    upstream: int
    bound_seconds: int
    offline_since: int
    site: SiteState
    def __init__(self, replica: _Optional[str] = ..., pool: _Optional[str] = ..., watermark: _Optional[int] = ..., filter_version: _Optional[int] = ..., epoch: _Optional[int] = ..., below: _Optional[_Iterable[_Union[ReplicaReport, _Mapping]]] = ..., volume_id: _Optional[int] = ..., upstream: _Optional[int] = ..., bound_seconds: _Optional[int] = ..., offline_since: _Optional[int] = ..., site: _Optional[_Union[SiteState, _Mapping]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("hello", "revision", "progress", "chunk", "trailer", "probe", "path", "rights", "zstd")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    ZSTD_FIELD_NUMBER: _ClassVar[int]
    hello: FollowHello
    revision: FollowRevision
    progress: FollowProgress
    chunk: FollowChunk
    trailer: FollowTrailer
    probe: ProbeReply
    path: FollowPath
    rights: FollowRights
    zstd: bytes
    def __init__(self, hello: _Optional[_Union[FollowHello, _Mapping]] = ..., revision: _Optional[_Union[FollowRevision, _Mapping]] = ..., progress: _Optional[_Union[FollowProgress, _Mapping]] = ..., chunk: _Optional[_Union[FollowChunk, _Mapping]] = ..., trailer: _Optional[_Union[FollowTrailer, _Mapping]] = ..., probe: _Optional[_Union[ProbeReply, _Mapping]] = ..., path: _Optional[_Union[FollowPath, _Mapping]] = ..., rights: _Optional[_Union[FollowRights, _Mapping]] = ..., zstd: _Optional[bytes] = ...) -> None: ...

class FollowHello(_message.Message):
    __slots__ = ("cluster_id", "epoch", "term", "filter_version", "floor", "snapshot", "partial", "users", "path", "lineage", "restored_from", "parent", "rights", "ranged")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    FILTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FROM_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    RANGED_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    epoch: int
    term: int
    filter_version: int
    floor: int
    snapshot: bool
    partial: bool
    users: bool
    path: FollowPath
    lineage: int
    restored_from: int
    parent: int
    rights: bool
    ranged: bool
    def __init__(self, cluster_id: _Optional[int] = ..., epoch: _Optional[int] = ..., term: _Optional[int] = ..., filter_version: _Optional[int] = ..., floor: _Optional[int] = ..., snapshot: _Optional[bool] = ..., partial: _Optional[bool] = ..., users: _Optional[bool] = ..., path: _Optional[_Union[FollowPath, _Mapping]] = ..., lineage: _Optional[int] = ..., restored_from: _Optional[int] = ..., parent: _Optional[int] = ..., rights: _Optional[bool] = ..., ranged: _Optional[bool] = ...) -> None: ...

class FollowRights(_message.Message):
    __slots__ = ("revision", "users", "roles")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    users: _containers.RepeatedCompositeFieldContainer[_auth_pb2.User]
    roles: _containers.RepeatedCompositeFieldContainer[_auth_pb2.Role]
    def __init__(self, revision: _Optional[int] = ..., users: _Optional[_Iterable[_Union[_auth_pb2.User, _Mapping]]] = ..., roles: _Optional[_Iterable[_Union[_auth_pb2.Role, _Mapping]]] = ...) -> None: ...

class FollowPath(_message.Message):
    __slots__ = ("nodes", "cut_off")
    NODES_FIELD_NUMBER: _ClassVar[int]
    CUT_OFF_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedScalarFieldContainer[int]
    cut_off: bool
    def __init__(self, nodes: _Optional[_Iterable[int]] = ..., cut_off: _Optional[bool] = ...) -> None: ...

class FollowRevision(_message.Message):
    __slots__ = ("revision", "term", "events", "previous")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    term: int
    events: _containers.RepeatedCompositeFieldContainer[_kv_pb2.Event]
    previous: int
    def __init__(self, revision: _Optional[int] = ..., term: _Optional[int] = ..., events: _Optional[_Iterable[_Union[_kv_pb2.Event, _Mapping]]] = ..., previous: _Optional[int] = ...) -> None: ...

class FollowProgress(_message.Message):
    __slots__ = ("revision", "term")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    revision: int
    term: int
    def __init__(self, revision: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...

class FollowChunk(_message.Message):
    __slots__ = ("kvs", "range", "revision", "hash")
    KVS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    kvs: _containers.RepeatedCompositeFieldContainer[_kv_pb2.KeyValue]
    range: KeyRange
    revision: int
    hash: int
    def __init__(self, kvs: _Optional[_Iterable[_Union[_kv_pb2.KeyValue, _Mapping]]] = ..., range: _Optional[_Union[KeyRange, _Mapping]] = ..., revision: _Optional[int] = ..., hash: _Optional[int] = ...) -> None: ...

class FollowTrailer(_message.Message):
    __slots__ = ("filter", "filter_version", "revision", "count", "hash")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    filter: _containers.RepeatedCompositeFieldContainer[KeyRange]
    filter_version: int
    revision: int
    count: int
    hash: int
    def __init__(self, filter: _Optional[_Iterable[_Union[KeyRange, _Mapping]]] = ..., filter_version: _Optional[int] = ..., revision: _Optional[int] = ..., count: _Optional[int] = ..., hash: _Optional[int] = ...) -> None: ...

class ProbeReply(_message.Message):
    __slots__ = ("id", "revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    id: int
    revision: int
    def __init__(self, id: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...
