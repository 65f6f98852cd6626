"""The two servers, each a process of its own with one member, and one call made to both at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from holdfast.proto import rpc_pb2
from holdfast_lab.processes import free_ports

from ..tools import tool

CALL_SECONDS = 20.0
BCRYPT_COST = 4  # hashing is not what is compared

Metadata = tuple[tuple[str, str], ...]


class Side:
    """One server and a channel to it."""

    def __init__(self, name: str, words: Callable[[int, int, Path], list[str]]) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"differential-{name}-"))
        port, peer_port = free_ports(2)
        self.log = self.directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words(port, peer_port, self.directory / "data"), stdout=log, stderr=log)
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._calls: dict[str, Any] = {}
        self.tokens: dict[str, str] = {}

    def start(self, path: str, request: Message, reply: type[Message], metadata: Metadata) -> Any:
        call = self._calls.get(path)
        if call is None:
            call = self._calls[path] = self.channel.unary_unary(
                path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
            )
        return call.future(request, timeout=CALL_SECONDS, metadata=metadata)

    def stream(self, path: str, requests: Iterable[Message], reply: type[Message], metadata: Metadata = ()) -> Any:
        call = self.channel.stream_stream(
            path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
        )
        return call(iter(requests), metadata=metadata)

    def stop(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def failed(self) -> str:
        return f"--- {self.name}\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


def _ours(port: int, peer_port: int, data: Path) -> list[str]:
    return [sys.executable, "-m", "holdfast", "serve", *_flags(port, peer_port, data)]


def _etcd(port: int, peer_port: int, data: Path) -> list[str]:
    words = [tool("etcd"), *_flags(port, peer_port, data)]
    return [*words, f"--advertise-client-urls=http://127.0.0.1:{port}", "--log-level=error"]


def _flags(port: int, peer_port: int, data: Path) -> list[str]:
    return [
        "--name=m",
        f"--data-dir={data}",
        f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=m=http://127.0.0.1:{peer_port}",
        f"--bcrypt-cost={BCRYPT_COST}",
    ]


class Pair:
    """Both servers."""

    def __init__(self) -> None:
        self.ours = Side("holdfast", _ours)
        self.etcd = Side("etcd", _etcd)
        self.sides = (self.ours, self.etcd)
        for side in self.sides:
            grpc.channel_ready_future(side.channel).result(timeout=30)
            wait = side.channel.unary_unary(
                "/etcdserverpb.KV/Range",
                request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=rpc_pb2.RangeResponse.FromString,
            )
            wait(rpc_pb2.RangeRequest(key=b"ready?"), timeout=30, wait_for_ready=True)

    def call(
        self, path: str, request: Message, reply: type[Message], metadata: tuple[Metadata, Metadata] = ((), ())
    ) -> tuple[Message | grpc.RpcError, Message | grpc.RpcError]:
        """(our answer, etcd's answer)."""
        running = [side.start(path, request, reply, m) for side, m in zip(self.sides, metadata, strict=True)]
        answers: list[Any] = []
        for future in running:
            error = future.exception()
            answers.append(future.result() if error is None else error)
        return answers[0], answers[1]

    def stop(self) -> None:
        for side in self.sides:
            side.stop()
