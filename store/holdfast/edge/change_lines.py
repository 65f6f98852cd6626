"""A change of a key as a line of JSON, as files of lost/ and `holdfast edge export` have it."""

from __future__ import annotations

import base64
import json

from holdfast.proto import kv_pb2


def put_line(kv: kv_pb2.KeyValue) -> str:
    """The key has this value since its `mod_revision`."""
    value = base64.b64encode(kv.value).decode()
    more = {"create_revision": kv.create_revision, "version": kv.version, "lease": kv.lease}
    return _line("put", kv.mod_revision, kv.key, value=value, **more)


def delete_line(revision: int, key: bytes) -> str:
    """The key was deleted."""
    return _line("delete", revision, key)


def _line(type: str, revision: int, key: bytes, **more: object) -> str:
    return json.dumps({"type": type, "revision": revision, "key": base64.b64encode(key).decode(), **more})
