"""What the client says when an answer does not come. The server is a stand-in that answers, or not, as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import pytest
from holdfast import client
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.status import NAME_METADATA, SESSION_ENDED

Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class Server(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers by method; what it does not know is unimplemented."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = details.method.rpartition("/")[2]
        self.asked.append((method, {k: v for k, v in details.invocation_metadata if isinstance(v, str)}))
        answer = self.answers.get(method)
        return None if answer is None else grpc.unary_unary_rpc_method_handler(answer)

    def names(self, method: str) -> list[str | None]:
        return [metadata.get("holdfast-seq") for asked, metadata in self.asked if asked == method]


async def opened(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
    return holdfast_pb2.SessionOpenResponse(id=7, ttl_seconds=60).SerializeToString()


async def done(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
    response = rpc_pb2.PutResponse()
    response.header.revision = 5
    return response.SerializeToString()


async def never(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def fails(code: grpc.StatusCode, text: str, times: int = 1, trailers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Fail so often, then answer."""
    left = [times]

    async def answer(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if left[0]:
            left[0] -= 1
            await context.abort(code, text, trailers)
        return await done(body, context)

    return answer


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    answers = Server()
    running = grpc.aio.server()
    running.add_generic_rpc_handlers((answers,))
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    yield answers, f"127.0.0.1:{port}"
    await running.stop(0)


async def test_a_named_write_that_is_never_answered_is_of_unknown_outcome(server: tuple[Server, str]) -> None:
    """Found by the crash tester: the write was reported as not done."""
    answers, endpoint = server
    answers.answers = {"Open": opened, "Put": never}
    async with client.connect(endpoint, timeout=2.0) as hf:
        with pytest.raises(client.OutcomeUnknown):
            await hf.put("k", "v")


async def test_a_named_write_is_asked_again_under_its_name(server: tuple[Server, str]) -> None:
    answers, endpoint = server
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL):
        answers.answers = {"Open": opened, "Put": fails(code, "Socket closed", times=2)}
        answers.asked.clear()
        async with client.connect(endpoint, timeout=10) as hf:
            assert (await hf.put("k", "v")).revision == 5
        assert answers.names("Put") == ["1", "1", "1"]


async def test_a_barrier_waits_for_the_writes_before_it_and_forbids_those_that_were_given_up(
    server: tuple[Server, str],
) -> None:
    """The servers refuse writes below `low` that come late."""
    answers, endpoint = server
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def slow(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if len(answers.names("Put")) == 2:
            arrived.set()
        await answer.wait()
        return await done(body, context)

    answers.answers = {"Open": opened, "Put": slow, "Txn": done}
    async with client.connect(endpoint, timeout=20) as hf, asyncio.timeout(20):
        waits, gives_up = asyncio.ensure_future(hf.put("k", "1")), asyncio.ensure_future(hf.put("k", "2"))
        await arrived.wait()
        gives_up.cancel()
        await asyncio.wait((gives_up,))
        barrier = asyncio.ensure_future(hf.commit(rpc_pb2.TxnRequest(), barrier=True))
        await asyncio.sleep(0)
        await hf.commit(rpc_pb2.TxnRequest())  # later writes do not wait
        assert not barrier.done()
        assert len(answers.names("Txn")) == 1
        answer.set()
        await asyncio.gather(waits, barrier)
    lows = [metadata["holdfast-low"] for asked, metadata in answers.asked if asked == "Txn"]
    assert answers.names("Txn") == ["4", "3"]
    assert lows == ["1", "3"]


async def test_without_sessions_a_write_is_sent_once(server: tuple[Server, str]) -> None:
    """etcd does not know them."""
    answers, endpoint = server
    answers.answers = {"Put": fails(grpc.StatusCode.UNAVAILABLE, "Socket closed")}
    async with client.connect(endpoint, timeout=10) as hf:
        with pytest.raises(client.OutcomeUnknown):
            await hf.put("k", "v")
        await hf.put("k", "v")
    assert answers.names("Put") == [None, None]
    assert len(answers.names("Open")) == 1


async def test_a_session_that_ended_before_anything_was_sent_is_opened_anew(server: tuple[Server, str]) -> None:
    """A server says so by text, or by name, whatever its text."""
    answers, endpoint = server
    for over in (
        fails(grpc.StatusCode.NOT_FOUND, SESSION_ENDED.message),
        fails(grpc.StatusCode.NOT_FOUND, "in words of later", trailers=((NAME_METADATA, "SESSION_ENDED"),)),
    ):
        answers.answers = {"Open": opened, "Put": over}
        answers.asked.clear()
        async with client.connect(endpoint, timeout=10) as hf:
            assert (await hf.put("k", "v")).revision == 5
        assert len(answers.names("Open")) == 2


async def test_an_error_that_only_reads_like_another_one_is_not_taken_for_it(server: tuple[Server, str]) -> None:
    answers, endpoint = server
    text = f"{SESSION_ENDED.message}, says somebody"
    answers.answers = {"Open": opened, "Put": fails(grpc.StatusCode.NOT_FOUND, text)}
    async with client.connect(endpoint, timeout=10) as hf:
        with pytest.raises(client.Refused, match="says somebody") as refused:
            await hf.put("k", "v")
    assert refused.value.known is None
    assert len(answers.names("Open")) == 1


async def test_a_session_that_ended_after_an_answer_was_lost_cannot_tell(server: tuple[Server, str]) -> None:
    answers, endpoint = server
    calls = []

    async def lost_then_over(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        calls.append(body)
        if len(calls) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        await context.abort(grpc.StatusCode.NOT_FOUND, SESSION_ENDED.message)
        raise AssertionError("unreachable")

    answers.answers = {"Open": opened, "Put": lost_then_over}
    async with client.connect(endpoint, timeout=10) as hf:
        with pytest.raises(client.OutcomeUnknown, match="has ended"):
            await hf.put("k", "v")
    assert len(calls) == 2


async def test_a_dropped_connection_does_not_end_the_calls_of_others(server: tuple[Server, str]) -> None:
    """Found by a test with several writers: dropping a channel cancelled what others had on it."""
    answers, endpoint = server
    release = asyncio.Event()

    async def slow(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return await done(body, context)

    answers.answers = {"Put": slow, "Range": fails(grpc.StatusCode.UNAVAILABLE, "Socket closed")}
    async with client.connect(endpoint, timeout=10, session_ttl=0) as hf:
        writing = asyncio.ensure_future(hf.put("k", "v"))
        await asyncio.sleep(0)
        while not answers.names("Put"):
            await asyncio.sleep(0.01)
        await hf.connection.drop(endpoint)
        release.set()
        assert (await writing).revision == 5
