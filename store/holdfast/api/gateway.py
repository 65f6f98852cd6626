"""The JSON gateway: every service by HTTP POST with JSON, at etcd's paths and in etcd's encoding.

A request becomes a call to the same services as over gRPC, and their answers become JSON: field names as in the .proto
files, 64-bit numbers as strings, bytes in base64, defaults omitted. A stream is a sequence of objects; its answers are
`{"result": …}`, one per line.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from holdfast.api.gateway_routes import Route, routes
from holdfast.api.identity import FORWARDERS
from holdfast.api.json_request import decode
from holdfast.api.json_stream import NotObjects, Objects
from holdfast.api.local import PASSED_ON
from holdfast.api.pages import split_target
from holdfast.api.router import Router
from holdfast.durations import grpc_timeout_ns
from holdfast.front.calls import (
    Action,
    Call,
    Cancelled,
    DescribedReply,
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
from holdfast.status import READ_METADATA, Code

DEFAULT_MESSAGE_BYTES = 2 << 20
JSON_BYTES = 2  # limit of the JSON per byte of the message: base64 takes 4 bytes for 3
BYTES_PER_TURN = 4 << 10  # of a stream's body decoded in one turn of the loop: an object can be two bytes
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


class Gateway:
    """Implements `front.http.HttpHandler` for paths below /v3/. Register all services with the router first.
    `max_message_bytes` is the largest message that a client may send, over gRPC or JSON."""

    def __init__(self, router: Router, max_message_bytes: int = DEFAULT_MESSAGE_BYTES) -> None:
        self._router = router
        self._routes = routes(router.kinds)
        self._max_message_bytes = max_message_bytes

    def __call__(self, request: Request, responder: Responder) -> Receiver:
        path, _ = split_target(request.target)
        if path.startswith("/v3beta/"):
            path = "/v3/" + path.removeprefix("/v3beta/")
        return _Exchange(self._router, self._routes.get(path), request, responder, self._max_message_bytes)


class _Exchange:
    """One request and its answers. Implements `router.Sink` and `front.http.Receiver`."""

    def __init__(
        self, router: Router, route: Route | None, request: Request, responder: Responder, max_message_bytes: int
    ) -> None:
        self._router = router
        self._route = route
        self._request = request
        self._responder = responder
        self._max_message_bytes = max_message_bytes
        self._body = bytearray()  # received and not parsed yet
        self._objects = Objects()
        self._working = False
        self._ended = False
        self._call: Call | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._started = False
        self._over = False

    # ---- the request ---------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        if self._route is None or self._over:
            return
        self._body += data
        limit = JSON_BYTES * self._max_message_bytes
        if len(self._body) + self._objects.waiting > limit:
            self._refuse(Code.RESOURCE_EXHAUSTED, f"the body is larger than {limit} bytes")
        elif self._route.kind is Kind.BIDI and not self._working:
            self._take_objects()

    def on_end(self) -> None:
        if self._over:
            return
        self._ended = True
        if self._route is None:
            self._refuse(Code.NOT_FOUND, "Not Found")
        elif self._request.method != "POST":
            self._refuse(Code.UNIMPLEMENTED, "Method Not Allowed", 405)
        elif self._route.kind is not Kind.BIDI:
            self._take_whole(self._route)
        elif not self._working:
            self._take_objects()

    def _half_close(self) -> None:
        if self._objects.waiting:
            self._refuse(Code.INVALID_ARGUMENT, "the body ends within an object")
        elif self._call is None:
            self._refuse(Code.INVALID_ARGUMENT, "the body holds no request")
        else:
            self._router.on_event(HalfClose(self._call.id))

    def _take_whole(self, route: Route) -> None:
        request = self._decoded(route, bytes(self._body) if self._body.strip() else b"{}")
        call = self._open(route) if request is not None else None
        if request is None or call is None:
            return
        if route.kind is Kind.UNARY:
            self._router.on_event(Unary(call, request))
        else:
            self._router.on_event(StreamMessage(call.id, request))
            self._router.on_event(HalfClose(call.id))

    def _take_objects(self) -> None:
        """Pass on the complete objects in the next BYTES_PER_TURN of the body; the rest waits for the next turn."""
        route = self._route
        self._working = False
        if route is None or self._over:
            return
        piece = bytes(self._body[:BYTES_PER_TURN])
        del self._body[:BYTES_PER_TURN]
        try:
            found = self._objects.feed(piece)
        except NotObjects as error:
            self._refuse(Code.INVALID_ARGUMENT, str(error))
            return
        for text in found:
            request = self._decoded(route, text)
            call = (self._call or self._open(route)) if request is not None else None
            if request is None or call is None or self._over:
                return
            self._router.on_event(StreamMessage(call.id, request))
        if self._body:
            self._working = True
            asyncio.get_running_loop().call_soon(self._take_objects)
        elif self._ended:
            self._half_close()

    def _decoded(self, route: Route, text: bytes) -> bytes | None:
        """The request as serialised protobuf; None if it was invalid and has been refused."""
        try:
            message = decode(text.decode(), route.request).SerializeToString()
        except ValueError as error:
            self._refuse(Code.INVALID_ARGUMENT, f"json: {error}")
            return None
        if len(message) > self._max_message_bytes:
            more = f"({len(message)} vs. {self._max_message_bytes})"
            self._refuse(Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max {more}")
            return None
        return message

    def _open(self, route: Route) -> Call | None:
        """Begin the call; a stream is then open. None if it was refused."""
        headers = self._request.headers
        timeout = headers.get("grpc-timeout")
        left = None if timeout is None else grpc_timeout_ns(timeout.encode("latin-1"))
        if timeout is not None and left is None:
            self._refuse(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {timeout}")
            return None
        passed_on = (*PASSED_ON, READ_METADATA)  # whoever says how fresh the answer has to be is not ignored
        metadata = {name: headers[name] for name in passed_on if name in headers and name not in FORWARDERS}
        for name, value in headers.items():
            named = name.removeprefix("grpc-metadata-")
            if named != name and named not in FORWARDERS:  # a page or a script is no replica
                metadata[named] = value
        # As in etcd, the certificate's common name is not used as the user of a JSON request.
        peer = Peer(self._request.peer.address, self._request.peer.tls, outbox=self._request.peer.outbox)
        deadline = None if left is None else time.monotonic_ns() + left
        call = self._router.open_local(route.method, self, peer=peer, metadata=metadata, deadline_ns=deadline)
        self._call = call
        if route.kind is not Kind.UNARY:
            if left is not None:  # services enforce deadlines of unary calls; those of streams are enforced here
                self._deadline = asyncio.get_running_loop().call_later(left / 1e9, self._out_of_time)
            self._router.on_event(Open(call))
        return call

    def _out_of_time(self) -> None:
        if self._call is not None and not self._over:
            self._refuse(Code.DEADLINE_EXCEEDED, "context deadline exceeded")

    def _refuse(self, code: Code, text: str, status: int = 0) -> None:
        """Answer an invalid request with an error, and cancel its call if one has begun."""
        if self._call is not None:
            self._router.on_event(Cancelled(self._call.id, text))
        self._fail(code, text, status)

    def on_gone(self) -> None:
        self._finished()
        if self._call is not None:
            self._router.on_event(Cancelled(self._call.id, "the client has gone"))

    def on_drained(self) -> None:
        if self._call is not None and not self._over:
            self._router.on_event(Writable(self._call.id))

    # ---- the response --------------------------------------------------------------------------------------

    def on_action(self, action: Action) -> bool:
        route = self._route
        assert route is not None
        if self._over:
            return False
        if isinstance(action, Reply):
            described = action.headers if isinstance(action, DescribedReply) else ()
            told = {f"grpc-metadata-{name.decode()}": value.decode() for name, value in described}
            self._write_whole(200, _to_json(route.response.FromString(action.body)), told)
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

    def _start(self, status: int, length: int | None, told: Mapping[str, str] | None = None) -> None:
        self._started = True
        headers = {"content-type": "application/json", **(told or {})}
        if length is not None:
            headers["content-length"] = str(length)
        self._responder.start(status, headers)

    def _write_whole(self, status: int, text: str, told: Mapping[str, str] | None = None) -> None:
        """`told`: more headers."""
        data = text.encode()
        self._start(status, len(data), told)
        if self._request.method != "HEAD":
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
        self._finished()
        self._responder.end()

    def _finished(self) -> None:
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._call is not None:
            self._router.close_local(self._call.id)


def _to_json(message: Message) -> str:
    return MessageToJson(message, preserving_proto_field_name=True, indent=None)
