"""A failure of one call's service affects only that call: a router on a real front, called by grpcio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from holdfast.api.router import Hold, Router
from holdfast.front.calls import Action, Call, Credit, Fail, Kind, Peer, Reply
from holdfast.front.http import Receiver, Request, Responder
from holdfast.front.http2.front import Http2Front
from holdfast.status import NO_LEADER, Code


class _Bad:
    """A stream whose service fails whatever happens to it."""

    def on_message(self, body: bytes) -> None: ...

    def on_half_close(self) -> None: ...

    def on_cancelled(self) -> None:
        raise ZeroDivisionError("cancelled")

    def on_over(self) -> None:
        raise ZeroDivisionError("over")

    def on_writable(self) -> None: ...


def _no_pages(request: Request, responder: Responder) -> Receiver:
    raise NotImplementedError


@contextlib.asynccontextmanager
async def serving(hold: Hold = lambda call, go_on: False) -> AsyncIterator[tuple[Router, grpc.aio.Channel]]:
    router = Router(hold=hold)
    router.unary("/t.T/Good", lambda call, body: router.reply(call.id, body))
    router.unary("/t.T/Bad", lambda call, body: router.reply(call.id, body[1 // len(body) :]))
    router.stream("/t.T/Streams", Kind.BIDI, lambda call: _Bad())
    front = Http2Front(router.kinds, _no_pages)
    port = await front.listen("127.0.0.1", 0, None)
    router.attach(front)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield router, channel
    router.detach()
    await front.close()


async def _all_good(channel: grpc.aio.Channel) -> None:
    calls = [channel.unary_unary("/t.T/Good")(b"%d" % n, timeout=10) for n in range(5)]
    assert await asyncio.gather(*calls) == [b"%d" % n for n in range(5)]


async def test_a_service_that_raises_fails_its_own_call() -> None:
    async with serving() as (_, channel):
        bad = [channel.unary_unary("/t.T/Bad")(b"", timeout=10) for _ in range(5)]
        await _all_good(channel)
        for call in bad:
            assert await call.code() is grpc.StatusCode.INTERNAL


async def test_so_does_what_decides_whether_it_has_to_wait() -> None:
    def hold(call: Call, go_on: object) -> bool:
        return call.method == "/t.T/Bad" and 1 // 0 == 0

    async with serving(hold) as (_, channel):
        bad = channel.unary_unary("/t.T/Bad")(b"x", timeout=10)
        await _all_good(channel)
        assert await bad.code() is grpc.StatusCode.INTERNAL


async def test_streams_that_fail_while_they_are_ended_do_not_keep_the_others() -> None:
    async with serving() as (router, channel):
        streams = [channel.stream_stream("/t.T/Streams", None, None)() for _ in range(3)]
        for stream in streams:
            await stream.write(b"")
        async with asyncio.timeout(10):
            while len(router._records) < 3:
                await asyncio.sleep(0.01)
        router.end_streams(NO_LEADER)
        for stream in streams:
            assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        await _all_good(channel)


async def test_a_stream_that_fails_when_its_client_is_slow_ends_alone() -> None:
    async with serving() as (router, channel):
        stream = channel.stream_stream("/t.T/Streams")()
        await stream.write(b"")
        async with asyncio.timeout(10):
            while not router._records:
                await asyncio.sleep(0.01)
        (id,) = router._records
        good = channel.unary_unary("/t.T/Good")(b"x", timeout=10)
        for _ in range(10):
            router.send(id, b"x" * 1_000_000)  # more than a window and the high water
        router.act(Credit(id, 1))
        assert await good == b"x"
        async with asyncio.timeout(10):
            while router._records:
                await asyncio.sleep(0.01)
        await _all_good(channel)


async def test_an_answer_that_a_caller_of_this_process_cannot_take_becomes_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sink:
        def __init__(self) -> None:
            self.taken: list[Action] = []

        def on_action(self, action: Action) -> bool:
            if isinstance(action, Reply) and action.body == b"bad":
                raise ZeroDivisionError("sink")
            self.taken.append(action)
            return False

    async with serving() as (router, channel):
        sinks = [Sink(), Sink(), Sink()]
        for sink, body in zip(sinks, (b"1", b"bad", b"3"), strict=True):
            call = router.open_local("/t.T/Good", sink, peer=Peer("here"), metadata={})
            router.act(Reply(call.id, body))
        await _all_good(channel)
        assert [[type(a) for a in sink.taken] for sink in sinks] == [[Reply], [Fail], [Reply]]
        failed = sinks[1].taken[0]
        assert isinstance(failed, Fail)
        assert failed.code is Code.INTERNAL
    assert "cannot be taken" in caplog.text
