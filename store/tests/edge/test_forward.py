"""What a replica forwards. The upstream is a gRPC server that answers what it is told to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from holdfast.edge.forward import MAX_ANSWER_BYTES, Forwarder, connection_to
from holdfast.status import Code, RequestError

from ..auth.test_vouching import call
from .test_access import Replica


async def test_an_answer_that_is_too_large_is_refused(tmp_path: Path) -> None:
    size = [MAX_ANSWER_BYTES]

    async def answer(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return bytes(size[0])

    upstream = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handlers = {"Range": grpc.unary_unary_rpc_method_handler(answer)}
    upstream.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("etcdserverpb.KV", handlers),))
    port = upstream.add_insecure_port("127.0.0.1:0")
    await upstream.start()
    connection = connection_to([f"127.0.0.1:{port}"], None, tmp_path)
    try:
        forwarder = Forwarder(connection, Replica().access)
        made = replace(call("ann"), method="/etcdserverpb.KV/Range")
        assert len(await forwarder.call(made, b"", 30.0)) == MAX_ANSWER_BYTES
        size[0] += 1
        with pytest.raises(RequestError, match=r"more than 64 MiB.*read in pages") as refused:
            await forwarder.call(made, b"", 30.0)
        assert refused.value.refusal.code is Code.RESOURCE_EXHAUSTED
    finally:
        await connection.close()
        await upstream.stop(0)
