"""Answers as plain values, without what differs by nature: who answered, in which term, and tokens."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from holdfast.proto import rpc_pb2


def plain(answer: Message | grpc.RpcError) -> Any:
    if isinstance(answer, grpc.RpcError):
        return (answer.code().name, answer.details())
    value = MessageToDict(answer, preserving_proto_field_name=True)
    _anonymous(value)
    if isinstance(answer, rpc_pb2.LeaseLeasesResponse):
        value["leases"] = sorted(lease["ID"] for lease in value.get("leases", ()))  # etcd: by time left
    elif isinstance(answer, rpc_pb2.LeaseTimeToLiveResponse):
        value["keys"] = sorted(value.get("keys", ()))  # etcd: in no order
        value["TTL"] = answer.TTL > 0 or answer.TTL  # seconds pass
    elif isinstance(answer, rpc_pb2.AuthenticateResponse):
        value["token"] = bool(answer.token)
    return value


def _anonymous(value: Any) -> None:
    if isinstance(value, dict):
        for key in ("cluster_id", "member_id", "raft_term"):
            value.pop(key, None)
        for inner in value.values():
            _anonymous(inner)
    elif isinstance(value, list):
        for inner in value:
            _anonymous(inner)
