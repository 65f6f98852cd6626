"""The JSON gateway: every service by POST with JSON, at etcd's paths and in its encodings.

A request becomes a call like those of gRPC and goes through the same services; what they answer becomes JSON: field
names as in the .proto files, 64-bit numbers as strings, bytes in base64, defaults left out. Streams are objects one
after the other, `{"result": …}` a line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.json_format import MessageToJson, Parse, ParseError
from google.protobuf.message import Message

from holdfast.api.local import PASSED_ON
from holdfast.api.pages import CORS
from holdfast.api.router import Router
from holdfast.durations import grpc_timeout_ns
from holdfast.front.calls import (
    Action,
    Call,
    Cancelled,
    Fail,
    Finish,
    HalfClose,
    Kind,
    Open,
    Peer,
    Reply,
    Send,
    Unary,
    Writable,
)
from holdfast.front.calls import Message as StreamMessage
from holdfast.front.http import Receiver, Request, Responder
from holdfast.proto import election_pb2, lock_pb2, rpc_pb2
from holdfast.status import Code

MAX_BODY_BYTES = 4 << 20  # of JSON, for 2 MiB of message
HIGH_WATER_BYTES = 1 << 20

_HTTP_STATUS = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class Route(NamedTuple):
    """Where a path leads."""

    method: str
    kind: Kind
    request: type[Message]
    response: type[Message]


def _routes(kinds: Mapping[str, Kind]) -> dict[str, Route]:
    """Path to what it calls. The paths are those of etcd's .proto annotations."""
    found: dict[str, Route] = {}

    def add(prefix: str, service: str, module: object, methods: Mapping[str, str], family: str = "") -> None:
        for word, method in methods.items():
            name, called = family + method, f"/{service}/{method}"
            request, response = _TYPES.get(method, (f"{name}Request", f"{name}Response"))
            route = Route(called, kinds[called], getattr(module, request), getattr(module, response))
            found[f"/v3/{prefix}/{word}"] = route

    add(
        "kv",
        "etcdserverpb.KV",
        rpc_pb2,
        {"range": "Range", "put": "Put", "deleterange": "DeleteRange", "txn": "Txn", "compaction": "Compact"},
    )
    lease = {
        "grant": "LeaseGrant",
        "revoke": "LeaseRevoke",
        "keepalive": "LeaseKeepAlive",
        "timetolive": "LeaseTimeToLive",
        "leases": "LeaseLeases",
    }
    add("lease", "etcdserverpb.Lease", rpc_pb2, lease)
    older = {word: method for word, method in lease.items() if word in ("revoke", "timetolive", "leases")}
    add("kv/lease", "etcdserverpb.Lease", rpc_pb2, older)
    members = ("add", "remove", "update", "list", "promote")
    add("cluster/member", "etcdserverpb.Cluster", rpc_pb2, {word: f"Member{word.capitalize()}" for word in members})
    add(
        "maintenance",
        "etcdserverpb.Maintenance",
        rpc_pb2,
        {
            "alarm": "Alarm",
            "status": "Status",
            "defragment": "Defragment",
            "hash": "Hash",
            "hashkv": "HashKV",
            "snapshot": "Snapshot",
            "transfer-leadership": "MoveLeader",
            "downgrade": "Downgrade",
        },
    )
    auth = "etcdserverpb.Auth"
    add("auth", auth, rpc_pb2, {"enable": "AuthEnable", "disable": "AuthDisable", "status": "AuthStatus"})
    add("auth", auth, rpc_pb2, {"authenticate": "Authenticate"})
    user = {word: f"User{word.capitalize()}" for word in ("add", "get", "list", "delete")}
    user |= {"changepw": "UserChangePassword", "grant": "UserGrantRole", "revoke": "UserRevokeRole"}
    add("auth/user", auth, rpc_pb2, user, "Auth")
    role = {word: f"Role{word.capitalize()}" for word in ("add", "get", "list", "delete")}
    role |= {"grant": "RoleGrantPermission", "revoke": "RoleRevokePermission"}
    add("auth/role", auth, rpc_pb2, role, "Auth")
    add("lock", "v3lockpb.Lock", lock_pb2, {"lock": "Lock", "unlock": "Unlock"})
    election = ("campaign", "proclaim", "leader", "observe", "resign")
    add("election", "v3electionpb.Election", election_pb2, {word: word.capitalize() for word in election})
    watch = "/etcdserverpb.Watch/Watch"
    found["/v3/watch"] = Route(watch, kinds[watch], rpc_pb2.WatchRequest, rpc_pb2.WatchResponse)
    return found


_TYPES = {
    "Compact": ("CompactionRequest", "CompactionResponse"),
    "Leader": ("LeaderRequest", "LeaderResponse"),
    "Observe": ("LeaderRequest", "LeaderResponse"),
}


class Gateway:
    """Implements `front.http.HttpHandler` for paths below /v3/. All services have to be at the router before."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._routes = _routes(router.kinds)

    def __call__(self, request: Request, responder: Responder) -> Receiver:
        path = request.target.partition("?")[0]
        if path.startswith("/v3beta/"):
            path = "/v3/" + path.removeprefix("/v3beta/")
        return _Exchange(self._router, self._routes.get(path), request, responder)


class _Exchange:
    """One request and its answers. A `router.Sink` and a `front.http.Receiver`."""

    def __init__(self, router: Router, route: Route | None, request: Request, responder: Responder) -> None:
        self._router = router
        self._route = route
        self._request = request
        self._responder = responder
        self._body = ""
        self._raw = b""
        self._call: Call | None = None
        self._started = False
        self._over = False

    # ---- what is asked -------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        if self._route is None or self._over:
            return
        self._raw += data
        if len(self._raw) + len(self._body) > MAX_BODY_BYTES:
            self._fail(Code.RESOURCE_EXHAUSTED, f"the body is larger than {MAX_BODY_BYTES} bytes")
        elif self._route.kind is Kind.BIDI:
            self._take_objects()

    def on_end(self) -> None:
        if self._over:
            return
        if self._request.method == "OPTIONS":
            self._start(200, 0)
            self._end()
        elif self._route is None:
            self._fail(Code.NOT_FOUND, "Not Found")
        elif self._request.method != "POST":
            self._fail(Code.UNIMPLEMENTED, "Method Not Allowed", 405)
        elif self._route.kind is Kind.BIDI:
            self._take_objects()
            self._half_close()
        else:
            self._take_whole(self._route)

    def _half_close(self) -> None:
        if self._over:
            return
        if self._body.strip() or self._raw:
            self._fail(Code.INVALID_ARGUMENT, "the body ends within an object")
        elif self._call is None:
            self._fail(Code.INVALID_ARGUMENT, "the body holds no request")
        else:
            self._router.take(HalfClose(self._call.id))

    def _take_whole(self, route: Route) -> None:
        try:
            request = self._parse(self._raw.decode() or "{}")
            call = self._open(route)
        except ValueError as error:
            self._fail(Code.INVALID_ARGUMENT, str(error))
            return
        if route.kind is Kind.UNARY:
            self._router.take(Unary(call, request))
        else:
            self._router.take(StreamMessage(call.id, request))
            self._router.take(HalfClose(call.id))

    def _take_objects(self) -> None:
        """Hand on each object that is whole by now."""
        route = self._route
        assert route is not None
        try:
            self._body += self._raw.decode()
            self._raw = b""
        except UnicodeDecodeError as error:
            if len(self._raw) - error.start > 3:
                self._fail(Code.INVALID_ARGUMENT, "the body is not UTF-8")
            return
        decoder = json.JSONDecoder()
        while not self._over:
            self._body = self._body.lstrip()
            if not self._body:
                return
            if self._body[0] != "{":
                self._fail(Code.INVALID_ARGUMENT, "the body is not a sequence of JSON objects")
                return
            try:
                _, end = decoder.raw_decode(self._body)
            except (ValueError, RecursionError):
                return  # not whole yet
            text, self._body = self._body[:end], self._body[end:]
            try:
                request = self._parse(text)
                call = self._call or self._open(route)
            except ValueError as error:
                self._fail(Code.INVALID_ARGUMENT, str(error))
                return
            self._router.take(StreamMessage(call.id, request))

    def _parse(self, text: str) -> bytes:
        """The request as it is on the wire. Raises ValueError that says what is wrong."""
        assert self._route is not None
        try:
            return Parse(text, self._route.request(), ignore_unknown_fields=True).SerializeToString()
        except (ParseError, RecursionError) as error:
            raise ValueError(f"json: {error}") from None

    def _open(self, route: Route) -> Call:
        """Begin the call; a stream is open after it. Raises ValueError."""
        headers = self._request.headers
        metadata = {name: headers[name] for name in PASSED_ON if name in headers}
        for name, value in headers.items():
            if name.startswith("grpc-metadata-"):
                metadata[name.removeprefix("grpc-metadata-")] = value
        # A certificate says who connects; whether that is the user of a request in JSON, it does not say (as in etcd).
        peer = Peer(self._request.peer.address, self._request.peer.tls)
        call = self._router.open_local(route.method, self, peer=peer, metadata=metadata, deadline_ns=self._deadline())
        self._call = call
        if route.kind is not Kind.UNARY:
            self._router.take(Open(call))
        return call

    def _deadline(self) -> int | None:
        timeout = self._request.headers.get("grpc-timeout")
        if timeout is None:
            return None
        left = grpc_timeout_ns(timeout.encode("latin-1"))
        if left is None:
            raise ValueError(f"invalid grpc-timeout: {timeout}")
        return time.monotonic_ns() + left

    def on_gone(self) -> None:
        self._over = True
        if self._call is not None:
            self._router.take(Cancelled(self._call.id, "the client has gone"))
            self._router.close_local(self._call.id)

    def on_drained(self) -> None:
        if self._call is not None and not self._over:
            self._router.take(Writable(self._call.id))

    # ---- what is answered ----------------------------------------------------------------------------------

    def take(self, action: Action) -> bool:
        route = self._route
        assert route is not None
        if self._over:
            return False
        if isinstance(action, Reply):
            self._write_whole(200, _to_json(route.response.FromString(action.body)))
        elif isinstance(action, Fail):
            self._fail(action.code, action.text)
        elif isinstance(action, Send):
            if not self._started:
                self._start(200, None)
            line = _to_json(route.response.FromString(action.body))
            return self._responder.write(f'{{"result":{line}}}\n'.encode())
        elif isinstance(action, Finish):
            if not self._started:
                self._start(200, None)
            self._end()
        return False

    def _start(self, status: int, length: int | None) -> None:
        self._started = True
        headers = {"content-type": "application/json", **CORS}
        if length is not None:
            headers["content-length"] = str(length)
        self._responder.start(status, headers)

    def _write_whole(self, status: int, text: str) -> None:
        data = text.encode()
        self._start(status, len(data))
        self._responder.write(data)
        self._end()

    def _fail(self, code: Code, text: str, status: int = 0) -> None:
        error = json.dumps({"code": code.value, "message": text})
        if self._started:
            self._responder.write(f'{{"error":{error}}}\n'.encode())
            self._end()
        else:
            self._write_whole(status or _HTTP_STATUS[code], error)

    def _end(self) -> None:
        self._over = True
        if self._call is not None:
            self._router.close_local(self._call.id)
        self._responder.end()


def _to_json(message: Message) -> str:
    return MessageToJson(message, preserving_proto_field_name=True, indent=None)
