from holdfast.proto import holdfast_pb2 as _holdfast_pb2
from holdfast.proto import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConfState(_message.Message):
    __slots__ = ("voters", "outgoing", "learners", "learners_next")
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    OUTGOING_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_NEXT_FIELD_NUMBER: _ClassVar[int]
    voters: _containers.RepeatedScalarFieldContainer[int]
    outgoing: _containers.RepeatedScalarFieldContainer[int]
    learners: _containers.RepeatedScalarFieldContainer[int]
    learners_next: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, voters: _Optional[_Iterable[int]] = ..., outgoing: _Optional[_Iterable[int]] = ..., learners: _Optional[_Iterable[int]] = ..., learners_next: _Optional[_Iterable[int]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("index", "term", "data", "conf")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CONF_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    data: bytes
    conf: ConfState
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., data: _Optional[bytes] = ..., conf: _Optional[_Union[ConfState, _Mapping]] = ...) -> None: ...

class HardState(_message.Message):
    __slots__ = ("term", "vote", "commit")
    TERM_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    term: int
    vote: int
    commit: int
    def __init__(self, term: _Optional[int] = ..., vote: _Optional[int] = ..., commit: _Optional[int] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("hard_state", "truncate_from", "entries", "base")
    HARD_STATE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FROM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    hard_state: HardState
    truncate_from: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    base: Base
    def __init__(self, hard_state: _Optional[_Union[HardState, _Mapping]] = ..., truncate_from: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., base: _Optional[_Union[Base, _Mapping]] = ...) -> None: ...

class Base(_message.Message):
    __slots__ = ("index", "term")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("format", "origin", "incarnation", "seq", "window_low", "principal", "auth_revision", "wall_ms", "session", "session_seq", "session_low", "via", "system", "put", "delete_range", "txn", "compact", "lease_grant", "lease_revoke", "member", "attributes", "claim", "cluster_version", "alarm", "auth", "lease_checkpoint", "put_sequential", "cachable")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    WINDOW_LOW_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_SEQ_FIELD_NUMBER: _ClassVar[int]
    SESSION_LOW_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_RANGE_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    COMPACT_FIELD_NUMBER: _ClassVar[int]
    LEASE_GRANT_FIELD_NUMBER: _ClassVar[int]
    LEASE_REVOKE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    LEASE_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PUT_SEQUENTIAL_FIELD_NUMBER: _ClassVar[int]
    CACHABLE_FIELD_NUMBER: _ClassVar[int]
    format: int
    origin: int
    incarnation: int
    seq: int
    window_low: int
    principal: str
    auth_revision: int
    wall_ms: int
    session: int
    session_seq: int
    session_low: int
    via: str
    system: bool
    put: _rpc_pb2.PutRequest
    delete_range: _rpc_pb2.DeleteRangeRequest
    txn: _rpc_pb2.TxnRequest
    compact: _rpc_pb2.CompactionRequest
    lease_grant: LeaseGrant
    lease_revoke: LeaseRevoke
    member: MemberChange
    attributes: MemberAttributes
    claim: Claim
    cluster_version: ClusterVersion
    alarm: _rpc_pb2.AlarmRequest
    auth: AuthChange
    lease_checkpoint: LeaseCheckpoint
    put_sequential: _holdfast_pb2.PutSequentialRequest
    cachable: CachablePrefix
    def __init__(self, format: _Optional[int] = ..., origin: _Optional[int] = ..., incarnation: _Optional[int] = ..., seq: _Optional[int] = ..., window_low: _Optional[int] = ..., principal: _Optional[str] = ..., auth_revision: _Optional[int] = ..., wall_ms: _Optional[int] = ..., session: _Optional[int] = ..., session_seq: _Optional[int] = ..., session_low: _Optional[int] = ..., via: _Optional[str] = ..., system: _Optional[bool] = ..., put: _Optional[_Union[_rpc_pb2.PutRequest, _Mapping]] = ..., delete_range: _Optional[_Union[_rpc_pb2.DeleteRangeRequest, _Mapping]] = ..., txn: _Optional[_Union[_rpc_pb2.TxnRequest, _Mapping]] = ..., compact: _Optional[_Union[_rpc_pb2.CompactionRequest, _Mapping]] = ..., lease_grant: _Optional[_Union[LeaseGrant, _Mapping]] = ..., lease_revoke: _Optional[_Union[LeaseRevoke, _Mapping]] = ..., member: _Optional[_Union[MemberChange, _Mapping]] = ..., attributes: _Optional[_Union[MemberAttributes, _Mapping]] = ..., claim: _Optional[_Union[Claim, _Mapping]] = ..., cluster_version: _Optional[_Union[ClusterVersion, _Mapping]] = ..., alarm: _Optional[_Union[_rpc_pb2.AlarmRequest, _Mapping]] = ..., auth: _Optional[_Union[AuthChange, _Mapping]] = ..., lease_checkpoint: _Optional[_Union[LeaseCheckpoint, _Mapping]] = ..., put_sequential: _Optional[_Union[_holdfast_pb2.PutSequentialRequest, _Mapping]] = ..., cachable: _Optional[_Union[CachablePrefix, _Mapping]] = ...) -> None: ...

class LeaseGrant(_message.Message):
    __slots__ = ("id", "ttl_seconds", "minted", "session", "delay_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MINTED_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: int
    ttl_seconds: int
    minted: bool
    session: bool
    delay_seconds: int
    def __init__(self, id: _Optional[int] = ..., ttl_seconds: _Optional[int] = ..., minted: _Optional[bool] = ..., session: _Optional[bool] = ..., delay_seconds: _Optional[int] = ...) -> None: ...

class LeaseRevoke(_message.Message):
    __slots__ = ("id", "expired", "delay_over")
    ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    DELAY_OVER_FIELD_NUMBER: _ClassVar[int]
    id: int
    expired: bool
    delay_over: bool
    def __init__(self, id: _Optional[int] = ..., expired: _Optional[bool] = ..., delay_over: _Optional[bool] = ...) -> None: ...

class LeaseCheckpoint(_message.Message):
    __slots__ = ("ids", "remaining_seconds")
    IDS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    remaining_seconds: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., remaining_seconds: _Optional[_Iterable[int]] = ...) -> None: ...

class AuthChange(_message.Message):
    __slots__ = ("enable", "disable", "user_add", "user_delete", "user_change_password", "user_grant_role", "user_revoke_role", "role_add", "role_delete", "role_grant_permission", "role_revoke_permission", "authenticated")
    ENABLE_FIELD_NUMBER: _ClassVar[int]
    DISABLE_FIELD_NUMBER: _ClassVar[int]
    USER_ADD_FIELD_NUMBER: _ClassVar[int]
    USER_DELETE_FIELD_NUMBER: _ClassVar[int]
    USER_CHANGE_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    USER_GRANT_ROLE_FIELD_NUMBER: _ClassVar[int]
    USER_REVOKE_ROLE_FIELD_NUMBER: _ClassVar[int]
    ROLE_ADD_FIELD_NUMBER: _ClassVar[int]
    ROLE_DELETE_FIELD_NUMBER: _ClassVar[int]
    ROLE_GRANT_PERMISSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_REVOKE_PERMISSION_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    enable: _rpc_pb2.AuthEnableRequest
    disable: _rpc_pb2.AuthDisableRequest
    user_add: _rpc_pb2.AuthUserAddRequest
    user_delete: _rpc_pb2.AuthUserDeleteRequest
    user_change_password: _rpc_pb2.AuthUserChangePasswordRequest
    user_grant_role: _rpc_pb2.AuthUserGrantRoleRequest
    user_revoke_role: _rpc_pb2.AuthUserRevokeRoleRequest
    role_add: _rpc_pb2.AuthRoleAddRequest
    role_delete: _rpc_pb2.AuthRoleDeleteRequest
    role_grant_permission: _rpc_pb2.AuthRoleGrantPermissionRequest
    role_revoke_permission: _rpc_pb2.AuthRoleRevokePermissionRequest
    authenticated: Authentication
    def __init__(self, enable: _Optional[_Union[_rpc_pb2.AuthEnableRequest, _Mapping]] = ..., disable: _Optional[_Union[_rpc_pb2.AuthDisableRequest, _Mapping]] = ..., user_add: _Optional[_Union[_rpc_pb2.AuthUserAddRequest, _Mapping]] = ..., user_delete: _Optional[_Union[_rpc_pb2.AuthUserDeleteRequest, _Mapping]] = ..., user_change_password: _Optional[_Union[_rpc_pb2.AuthUserChangePasswordRequest, _Mapping]] = ..., user_grant_role: _Optional[_Union[_rpc_pb2.AuthUserGrantRoleRequest, _Mapping]] = ..., user_revoke_role: _Optional[_Union[_rpc_pb2.AuthUserRevokeRoleRequest, _Mapping]] = ..., role_add: _Optional[_Union[_rpc_pb2.AuthRoleAddRequest, _Mapping]] = ..., role_delete: _Optional[_Union[_rpc_pb2.AuthRoleDeleteRequest, _Mapping]] = ..., role_grant_permission: _Optional[_Union[_rpc_pb2.AuthRoleGrantPermissionRequest, _Mapping]] = ..., role_revoke_permission: _Optional[_Union[_rpc_pb2.AuthRoleRevokePermissionRequest, _Mapping]] = ..., authenticated: _Optional[_Union[Authentication, _Mapping]] = ...) -> None: ...

class Authentication(_message.Message):
    __slots__ = ("user", "token", "password")
    USER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    user: str
    token: str
    password: bytes
    def __init__(self, user: _Optional[str] = ..., token: _Optional[str] = ..., password: _Optional[bytes] = ...) -> None: ...

class AuthState(_message.Message):
    __slots__ = ("enabled", "revision")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    revision: int
    def __init__(self, enabled: _Optional[bool] = ..., revision: _Optional[int] = ...) -> None: ...

class MemberInfo(_message.Message):
    __slots__ = ("id", "name", "peer_urls", "client_urls", "volume_id", "priority")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_URLS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    client_urls: _containers.RepeatedScalarFieldContainer[str]
    volume_id: int
    priority: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., peer_urls: _Optional[_Iterable[str]] = ..., client_urls: _Optional[_Iterable[str]] = ..., volume_id: _Optional[int] = ..., priority: _Optional[int] = ...) -> None: ...

class MemberChange(_message.Message):
    __slots__ = ("kind", "member", "expected_config_index", "together")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ADD_LEARNER: _ClassVar[MemberChange.Kind]
        ADD_VOTER: _ClassVar[MemberChange.Kind]
        PROMOTE: _ClassVar[MemberChange.Kind]
        REMOVE: _ClassVar[MemberChange.Kind]
        UPDATE: _ClassVar[MemberChange.Kind]
        DEMOTE: _ClassVar[MemberChange.Kind]
    ADD_LEARNER: MemberChange.Kind
    ADD_VOTER: MemberChange.Kind
    PROMOTE: MemberChange.Kind
    REMOVE: MemberChange.Kind
    UPDATE: MemberChange.Kind
    DEMOTE: MemberChange.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CONFIG_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOGETHER_FIELD_NUMBER: _ClassVar[int]
    kind: MemberChange.Kind
    member: MemberInfo
    expected_config_index: int
    together: _containers.RepeatedCompositeFieldContainer[MemberChange]
    def __init__(self, kind: _Optional[_Union[MemberChange.Kind, str]] = ..., member: _Optional[_Union[MemberInfo, _Mapping]] = ..., expected_config_index: _Optional[int] = ..., together: _Optional[_Iterable[_Union[MemberChange, _Mapping]]] = ...) -> None: ...

class KeptAnswer(_message.Message):
    __slots__ = ("floor", "revision", "kind", "response", "error_code", "error", "hash")
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    floor: int
    revision: int
    kind: str
    response: bytes
    error_code: int
    error: str
    hash: bytes
    def __init__(self, floor: _Optional[int] = ..., revision: _Optional[int] = ..., kind: _Optional[str] = ..., response: _Optional[bytes] = ..., error_code: _Optional[int] = ..., error: _Optional[str] = ..., hash: _Optional[bytes] = ...) -> None: ...

class MemberAttributes(_message.Message):
    __slots__ = ("id", "name", "client_urls", "priority")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_URLS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    client_urls: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., client_urls: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("member_id", "volume_id")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    member_id: int
    volume_id: int
    def __init__(self, member_id: _Optional[int] = ..., volume_id: _Optional[int] = ...) -> None: ...

class CachablePrefix(_message.Message):
    __slots__ = ("prefix", "allowed")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    allowed: bool
    def __init__(self, prefix: _Optional[bytes] = ..., allowed: _Optional[bool] = ...) -> None: ...

class ClusterVersion(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "cluster_id", "epoch", "from_id", "to_id", "volume_id", "purpose", "refused", "peer_url", "speaks")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PEER_URL_FIELD_NUMBER: _ClassVar[int]
    SPEAKS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    cluster_id: int
    epoch: int
    from_id: int
    to_id: int
    volume_id: int
    purpose: str
    refused: str
    peer_url: str
    speaks: int
    def __init__(self, protocol: _Optional[int] = ..., cluster_id: _Optional[int] = ..., epoch: _Optional[int] = ..., from_id: _Optional[int] = ..., to_id: _Optional[int] = ..., volume_id: _Optional[int] = ..., purpose: _Optional[str] = ..., refused: _Optional[str] = ..., peer_url: _Optional[str] = ..., speaks: _Optional[int] = ...) -> None: ...

class FoundingView(_message.Message):
    __slots__ = ("token", "name", "volume_id", "peers", "cluster_id", "confirmed")
    class PeersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    token: str
    name: str
    volume_id: int
    peers: _containers.ScalarMap[str, str]
    cluster_id: int
    confirmed: int
    def __init__(self, token: _Optional[str] = ..., name: _Optional[str] = ..., volume_id: _Optional[int] = ..., peers: _Optional[_Mapping[str, str]] = ..., cluster_id: _Optional[int] = ..., confirmed: _Optional[int] = ...) -> None: ...

class ClaimRequest(_message.Message):
    __slots__ = ("volume_id", "peer_urls")
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    volume_id: int
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, volume_id: _Optional[int] = ..., peer_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class ClaimReply(_message.Message):
    __slots__ = ("cluster_id", "member_id", "refused")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    member_id: int
    refused: str
    def __init__(self, cluster_id: _Optional[int] = ..., member_id: _Optional[int] = ..., refused: _Optional[str] = ...) -> None: ...

class PeerFrame(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[PeerMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[PeerMessage, _Mapping]]] = ...) -> None: ...

class PeerMessage(_message.Message):
    __slots__ = ("term", "pre_vote", "pre_vote_reply", "vote", "vote_reply", "append", "append_reply", "heartbeat", "heartbeat_reply", "timeout_now", "forward", "rejected", "read_request", "read_reply", "renew", "renew_reply")
    TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_REPLY_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    VOTE_REPLY_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    APPEND_REPLY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_REPLY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    READ_REQUEST_FIELD_NUMBER: _ClassVar[int]
    READ_REPLY_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    RENEW_REPLY_FIELD_NUMBER: _ClassVar[int]
    term: int
    pre_vote: PreVote
    pre_vote_reply: PreVoteReply
    vote: Vote
    vote_reply: VoteReply
    append: Append
    append_reply: AppendReply
    heartbeat: Heartbeat
    heartbeat_reply: HeartbeatReply
    timeout_now: TimeoutNow
    forward: Forward
    rejected: Rejected
    read_request: ReadRequest
    read_reply: ReadReply
    renew: Renew
    renew_reply: RenewReply
    def __init__(self, term: _Optional[int] = ..., pre_vote: _Optional[_Union[PreVote, _Mapping]] = ..., pre_vote_reply: _Optional[_Union[PreVoteReply, _Mapping]] = ..., vote: _Optional[_Union[Vote, _Mapping]] = ..., vote_reply: _Optional[_Union[VoteReply, _Mapping]] = ..., append: _Optional[_Union[Append, _Mapping]] = ..., append_reply: _Optional[_Union[AppendReply, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., heartbeat_reply: _Optional[_Union[HeartbeatReply, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., forward: _Optional[_Union[Forward, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ..., read_request: _Optional[_Union[ReadRequest, _Mapping]] = ..., read_reply: _Optional[_Union[ReadReply, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., renew_reply: _Optional[_Union[RenewReply, _Mapping]] = ...) -> None: ...

class PreVote(_message.Message):
    __slots__ = ("last_index", "last_term")
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    last_index: int
    last_term: int
    def __init__(self, last_index: _Optional[int] = ..., last_term: _Optional[int] = ...) -> None: ...

class PreVoteReply(_message.Message):
    __slots__ = ("granted",)
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    def __init__(self, granted: _Optional[bool] = ...) -> None: ...

class Vote(_message.Message):
    __slots__ = ("last_index", "last_term", "transfer")
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    last_index: int
    last_term: int
    transfer: bool
    def __init__(self, last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., transfer: _Optional[bool] = ...) -> None: ...

class VoteReply(_message.Message):
    __slots__ = ("granted",)
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    def __init__(self, granted: _Optional[bool] = ...) -> None: ...

class Append(_message.Message):
    __slots__ = ("prev_index", "prev_term", "entries", "commit")
    PREV_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_TERM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    prev_index: int
    prev_term: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    commit: int
    def __init__(self, prev_index: _Optional[int] = ..., prev_term: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., commit: _Optional[int] = ...) -> None: ...

class AppendReply(_message.Message):
    __slots__ = ("ok", "index", "hint_index", "hint_term")
    OK_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_TERM_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    index: int
    hint_index: int
    hint_term: int
    def __init__(self, ok: _Optional[bool] = ..., index: _Optional[int] = ..., hint_index: _Optional[int] = ..., hint_term: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("commit", "round", "digest_index", "digest")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DIGEST_INDEX_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    commit: int
    round: int
    digest_index: int
    digest: int
    def __init__(self, commit: _Optional[int] = ..., round: _Optional[int] = ..., digest_index: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("round", "promise", "level")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    round: int
    promise: bool
    level: int
    def __init__(self, round: _Optional[int] = ..., promise: _Optional[bool] = ..., level: _Optional[int] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Forward(_message.Message):
    __slots__ = ("commands",)
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, commands: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("incarnation", "seq", "reason")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    seq: int
    reason: str
    def __init__(self, incarnation: _Optional[int] = ..., seq: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ReadReply(_message.Message):
    __slots__ = ("id", "index")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    id: int
    index: int
    def __init__(self, id: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("id", "leases", "query")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    id: int
    leases: _containers.RepeatedScalarFieldContainer[int]
    query: bool
    def __init__(self, id: _Optional[int] = ..., leases: _Optional[_Iterable[int]] = ..., query: _Optional[bool] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("id", "leases", "ttls")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    TTLS_FIELD_NUMBER: _ClassVar[int]
    id: int
    leases: _containers.RepeatedScalarFieldContainer[int]
    ttls: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., leases: _Optional[_Iterable[int]] = ..., ttls: _Optional[_Iterable[int]] = ...) -> None: ...

class SnapshotHeader(_message.Message):
    __slots__ = ("term", "index", "index_term", "conf", "format", "id")
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INDEX_TERM_FIELD_NUMBER: _ClassVar[int]
    CONF_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    term: int
    index: int
    index_term: int
    conf: ConfState
    format: int
    id: int
    def __init__(self, term: _Optional[int] = ..., index: _Optional[int] = ..., index_term: _Optional[int] = ..., conf: _Optional[_Union[ConfState, _Mapping]] = ..., format: _Optional[int] = ..., id: _Optional[int] = ...) -> None: ...

class SnapshotHave(_message.Message):
    __slots__ = ("parts", "refused")
    class Part(_message.Message):
        __slots__ = ("file", "size")
        FILE_FIELD_NUMBER: _ClassVar[int]
        SIZE_FIELD_NUMBER: _ClassVar[int]
        file: str
        size: int
        def __init__(self, file: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...
    PARTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[SnapshotHave.Part]
    refused: str
    def __init__(self, parts: _Optional[_Iterable[_Union[SnapshotHave.Part, _Mapping]]] = ..., refused: _Optional[str] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("file", "data", "crc", "last", "offset")
    FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    file: str
    data: bytes
    crc: int
    last: bool
    offset: int
    def __init__(self, file: _Optional[str] = ..., data: _Optional[bytes] = ..., crc: _Optional[int] = ..., last: _Optional[bool] = ..., offset: _Optional[int] = ...) -> None: ...

class SnapshotReply(_message.Message):
    __slots__ = ("ok", "reason")
    OK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    reason: str
    def __init__(self, ok: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...
