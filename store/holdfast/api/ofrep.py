"""OFREP, OpenFeature's protocol for evaluation by a server: `POST /ofrep/v1/evaluate/flags[/KEY]`.

A call within this process evaluates, so that rights, held calls and errors are those of all other calls. The work is
done in a thread, one request at a time; clients take turns.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import unquote

from holdfast.api.flag_evaluation import Evaluator, NotInstalled
from holdfast.api.flags import SELECTOR, FlagsService, Once
from holdfast.api.local import PASSED_ON
from holdfast.api.pages import split_target
from holdfast.api.router import Router
from holdfast.api.shared_flags import Document, Position, SharedSet
from holdfast.flags.definition import Invalid, parse_object, shown
from holdfast.front.calls import Action, Call, Cancelled, Fail, Peer, Reply, Unary
from holdfast.front.http import Receiver, Request, Responder
from holdfast.places import Full, Places
from holdfast.status import (
    INTERNAL_ERROR,
    INVALID_AUTH_TOKEN,
    TOO_MANY_REQUESTS,
    USER_EMPTY,
    Code,
    Refusal,
    for_people,
)
from holdfast.tasks import Tasks

log = logging.getLogger("holdfast.flags")

ROOT = "/ofrep/"
_FLAGS = "/ofrep/v1/evaluate/flags"
_METHOD = "/ofrep.v1/Evaluate"
MAX_BODY_BYTES = 64 << 10
SHARE = 16  # evaluations of one connection, under way or waiting

_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.FAILED_PRECONDITION: 400,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
}


class _NoContext(Invalid):
    """What should be the context is none."""


class _Question(NamedTuple):
    """`key` is None for all flags. `etags`: of answers that the client has."""

    key: str | None
    etags: str
    body: bytes


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: object  # what becomes JSON; None: no body


class Ofrep:
    """Implements `front.http.HttpHandler` for paths below ROOT."""

    def __init__(self, router: Router, flags: FlagsService) -> None:
        self.router = router
        self._flags = flags
        self._questions: dict[int, _Question] = {}  # by call
        self._answers: dict[int, _Answer] = {}
        self._evaluator: Evaluator | None = None
        self._thread = ThreadPoolExecutor(1, "flags")
        self._places = Places(1, SHARE)
        self._tasks = Tasks()
        router.inner(_METHOD, self._evaluate)

    def __call__(self, request: Request, responder: Responder) -> Receiver:
        return _Exchange(self, request, responder)

    def ask(self, question: _Question, exchange: _Exchange, peer: Peer, metadata: Mapping[str, str]) -> Call:
        call = self.router.open_local(_METHOD, exchange, peer=peer, metadata=metadata)
        self._questions[call.id] = question
        self.router.on_event(Unary(call, question.body))
        return call

    def answer(self, id: int) -> _Answer:
        return self._answers.pop(id)

    def close(self, id: int) -> None:
        self._questions.pop(id, None)
        self._answers.pop(id, None)
        self.router.close_local(id)

    # ---- the call ------------------------------------------------------------------------------------------

    def _evaluate(self, call: Call, body: bytes) -> None:
        question = self._questions[call.id]
        found = self._flags.find(call, self._flags.selector(call, ""))
        try:
            context = _context(body)
        except Invalid as error:
            code = "INVALID_CONTEXT" if isinstance(error, _NoContext) else "PARSE_ERROR"
            self._reply(call, _failed(400, question.key, code, str(error)))
            return
        once = Once(
            found,
            lambda: self._ready(call, question, found, context),
            lambda refusal: self.router.fail(call.id, refusal),
        )
        if once.waiting:
            self.router.on_cancel(call, once.cancel)

    def _ready(self, call: Call, question: _Question, found: SharedSet, context: dict[str, Any]) -> None:
        """The flags are there: evaluate when it is this client's turn."""
        document, position = found.document, found.position
        assert document is not None
        if question.key is not None and question.key not in document.definitions.flags:
            details = f"the flag {shown(question.key)} is not there"
            self._reply(call, _failed(404, question.key, "FLAG_NOT_FOUND", details, _headers(position)))
            return
        try:
            place = self._places.ask(call.peer.address)
        except Full:
            self.router.fail(call.id, TOO_MANY_REQUESTS)
            return
        self.router.on_cancel(call, place.give_up)

        async def work() -> None:
            try:
                async with place:
                    answer = await asyncio.get_running_loop().run_in_executor(
                        self._thread, self._answered, question, document, context
                    )
            except Exception:
                log.exception("flags could not be evaluated")
                self.router.fail(call.id, INTERNAL_ERROR)
                return
            self._reply(call, answer._replace(headers={**_headers(position), **answer.headers}))

        self._tasks.spawn(work())

    def _answered(self, question: _Question, document: Document, context: dict[str, Any]) -> _Answer:
        """In the thread."""
        try:
            evaluator = self._evaluator = self._evaluator or Evaluator()
        except NotInstalled as error:
            return _Answer(501, {}, {"errorDetails": str(error)})
        if question.key is not None:
            one = evaluator.one(document.definitions, question.key, context)
            return _Answer(400 if "errorCode" in one else 200, {}, one)
        answers = evaluator.all(document.definitions, context)
        etag = f'"{hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()[:32]}"'
        known = [tag.strip().removeprefix("W/") for tag in question.etags.split(",")]
        if etag in known or "*" in known:
            return _Answer(304, {"etag": etag}, None)
        return _Answer(200, {"etag": etag}, {"flags": answers})

    def _reply(self, call: Call, answer: _Answer) -> None:
        if call.id in self._questions:  # else the client has gone
            self._answers[call.id] = answer
            self.router.reply(call.id, b"")


class _Exchange:
    """One request. Implements `router.Sink` and `front.http.Receiver`."""

    def __init__(self, ofrep: Ofrep, request: Request, responder: Responder) -> None:
        self._ofrep = ofrep
        self._request = request
        self._responder = responder
        self._body = bytearray()
        self._call: int | None = None
        self._over = False

    def on_body(self, data: bytes) -> None:
        if not self._over:
            self._body += data
            if len(self._body) > MAX_BODY_BYTES:
                self._write(_Answer(413, {}, {"errorDetails": f"the body is larger than {MAX_BODY_BYTES} bytes"}))

    def on_end(self) -> None:
        if self._over:
            return
        path, _ = split_target(self._request.target)
        key = unquote(path.removeprefix(_FLAGS + "/"), errors="replace") if path.startswith(_FLAGS + "/") else None
        if (key is None and path != _FLAGS) or key == "":
            self._write(_Answer(404, {}, {"errorDetails": "there is only POST /ofrep/v1/evaluate/flags[/KEY]"}))
            return
        if self._request.method != "POST":
            self._write(_Answer(405, {"allow": "POST"}, {"errorDetails": "only POST"}))
            return
        headers = self._request.headers
        metadata = {name: headers[name] for name in (*PASSED_ON, SELECTOR) if name in headers}
        metadata.pop("client-api-version", None)  # of etcd's clients
        # As for JSON requests, the certificate's common name is not used as the user.
        peer = Peer(self._request.peer.address, self._request.peer.tls, outbox=self._request.peer.outbox)
        question = _Question(key, headers.get("if-none-match", ""), bytes(self._body))
        call = self._ofrep.ask(question, self, peer, metadata)
        self._call = call.id

    def on_gone(self) -> None:
        self._over = True
        if self._call is not None:
            self._ofrep.router.on_event(Cancelled(self._call, "the client has gone"))
            self._ofrep.close(self._call)

    def on_drained(self) -> None:
        """Nothing to do: an answer is written at once."""

    def on_action(self, action: Action) -> bool:
        if isinstance(action, Reply):
            self._write(self._ofrep.answer(action.id))
        elif isinstance(action, Fail):
            self._write(_refused(Refusal(action.code, action.text)))
        return False

    def _write(self, answer: _Answer) -> None:
        if self._over:
            return
        self._over = True
        if self._call is not None:
            self._ofrep.close(self._call)
        data = b"" if answer.body is None else json.dumps(answer.body).encode()
        headers = {**answer.headers, "content-type": "application/json", "x-content-type-options": "nosniff"}
        if answer.status != 304:
            headers["content-length"] = str(len(data))
        self._responder.start(answer.status, headers)
        if data and self._request.method != "HEAD":
            self._responder.write(data)
        self._responder.end()


def _context(body: bytes) -> dict[str, Any]:
    """The evaluation context in a request's body. Raises Invalid."""
    found = parse_object(body, MAX_BODY_BYTES) if body.strip() else {}
    context = found.get("context")
    if context is None:
        return {}
    if not isinstance(context, dict):
        raise _NoContext('"context" must be an object')
    return context


def _failed(status: int, key: str | None, code: str, details: str, headers: Mapping[str, str] | None = None) -> _Answer:
    body = {"errorCode": code, "errorDetails": details}
    return _Answer(status, headers or {}, body if key is None else {"key": key, **body})


def _refused(refusal: Refusal) -> _Answer:
    status = 401 if refusal in (USER_EMPTY, INVALID_AUTH_TOKEN) else _STATUS.get(refusal.code, 500)
    return _Answer(status, {}, {"errorDetails": for_people(refusal.message)})


def _headers(position: Position) -> dict[str, str]:
    """Where the answer's flags stand."""
    headers = {"holdfast-revision": str(position.revision)}
    if position.staleness is not None:
        headers["holdfast-staleness-seconds"] = f"{position.staleness:.3f}"
    return headers
