"""A program that knows nothing of holdfast: it reads files, and reads them again when it is told to. See sidecar.yaml.

CONFIG=/config PORT=8080 python sidecar_app.py
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFIG = Path(os.environ.get("CONFIG", "/config"))


def read() -> dict[str, str]:
    """All files of one state: `..data` is resolved once."""
    state = (CONFIG / "..data").resolve()
    return {str(path.relative_to(state)): path.read_text() for path in state.rglob("*") if path.is_file()}


class Handler(BaseHTTPRequestHandler):
    settings = read()

    def do_GET(self) -> None:
        self.answer(json.dumps(Handler.settings))

    def do_POST(self) -> None:
        if self.path != "/-/reload":
            self.send_error(404)
            return
        Handler.settings = read()
        self.answer("")

    def answer(self, body: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
