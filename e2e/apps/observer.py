"""On an edge node: watches prefixes and says each event; reads a key over and over, by a connection of its own each
time, and says when reads begin to work, and when they begin to fail."""

import asyncio
import base64
import http.client
import json
import os
import socket
import ssl
import sys
import time

from holdfast import client

PAUSE_SECONDS = 0.05
READ_SECONDS = 2.0


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


class Reads:
    """The addresses are looked up once: a node that is cut off has no name server."""

    def __init__(self, endpoint: str, key: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._host = host
        self._address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][4][:2]
        self._request = json.dumps({"key": base64.b64encode(key.encode()).decode(), "serializable": True})
        directory = os.environ["HOLDFAST_TLS_DIR"]
        self._tls = ssl.create_default_context(cafile=f"{directory}/ca.crt")
        self._tls.load_cert_chain(f"{directory}/tls.crt", f"{directory}/tls.key")

    def once(self) -> str | None:
        connection = http.client.HTTPSConnection(self._host)
        with socket.create_connection(self._address, READ_SECONDS) as plain:
            connection.sock = self._tls.wrap_socket(plain, server_hostname=self._host)
            connection.request("POST", "/v3/kv/range", self._request)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.client.OK:
                raise OSError(f"{answer.status} {text.decode()}")
            found = json.loads(text).get("kvs", [])
            connection.close()
            return base64.b64decode(found[0]["value"]).decode() if found else None

    async def run(self) -> None:
        before: tuple[str, object] | None = None
        while True:
            try:
                now: tuple[str, object] = ("read", await asyncio.to_thread(self.once))
            except (OSError, http.client.HTTPException, ValueError) as error:
                now = ("failed", str(error))
            # While reads fail, the reason does not matter.
            if before is None or now[0] != before[0] or (now[0] == "read" and now != before):
                say(**{now[0]: now[1]}, at=time.time())
            before = now
            await asyncio.sleep(PAUSE_SECONDS)


async def watch(hf: client.Client, prefix: str, start: int) -> None:
    async for event in hf.watch(prefix, prefix=True, start_revision=start):
        say(event=event.type, key=event.kv.key.decode(), revision=event.kv.mod_revision, at=time.time())


async def main(endpoint: str, key: str, start: int, prefixes: list[str]) -> None:
    async with client.connect(endpoint, timeout=5.0, cache_dir="/cache") as hf:
        await asyncio.gather(Reads(endpoint, key).run(), *(watch(hf, prefix, start) for prefix in prefixes))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
